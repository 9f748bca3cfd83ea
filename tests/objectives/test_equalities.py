"""Objectives that are the same thing under two names: equal losses, equal gradients."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor

from opd.batch import to_batch
from opd.learner.student import Student
from opd.needs import Needs
from opd.objectives import GKD, GRPO, MiniLLM, ReverseKL, Term, TopK, Weighted
from opd.objectives.policy_gradient import Kind, PolicyGradient
from opd.protocols import Objective
from opd.teaching import Scorer
from opd.tensors import Completions, Tokens
from tests.objectives.cases import KINDS, MIXTURE, Case, Step, assert_same, judged, step

ALL = Case("all", Weighted(terms={"a": Term(GKD()), "b": Term(TopK(k=45)), "c": Term(ReverseKL())}))
"""Asks for everything."""
V = 45

SAME: dict[str, tuple[Objective, Objective]] = {
    "minillm's long term, undiscounted ahead, is Tinker's estimator": (
        MiniLLM(single_step=False, gamma=0.0), ReverseKL(),
    ),
    "minillm's long term as a sum is the discounted reverse KL": (
        MiniLLM(single_step=False, gamma=0.7, length_normalised=False), ReverseKL(discount=0.7),
    ),
    "minillm's single step is gkd's reverse KL": (MiniLLM(long_term=False), GKD(beta=1.0)),
    "minillm's single step is the exact reverse KL": (MiniLLM(long_term=False), ReverseKL(estimator="exact")),
    "minillm that looks no further has its single step only": (MiniLLM(gamma=0.0), GKD(beta=1.0)),
    **{f"the teacher's top-k of everything is gkd {b}": (TopK(k=V, beta=b), GKD(beta=b)) for b in (0.0, 0.5, 1.0)},
    "the student's top-k of everything is the exact reverse KL": (
        TopK(of="student", k=V), ReverseKL(estimator="exact"),
    ),
    "a sum of one": (Weighted(terms={"only": Term(GKD(beta=0.2))}), GKD(beta=0.2)),
    "a part of weight 0": (Weighted(terms={"a": Term(GKD()), "b": Term(ReverseKL(), 0.0)}), GKD()),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_two_names_of_one_objective(name: str, student: Student, teacher: Scorer) -> None:
    batch = to_batch(judged(ALL, student, teacher), 0, 24)
    found = [step(student, batch, objective, teacher) for objective in SAME[name]]
    assert found[0].size > 1e-3
    assert_same(*found)


@dataclass(frozen=True, kw_only=True)
class Summed(PolicyGradient):
    """One policy gradient under a weighted sum of advantages."""

    @property
    def needs(self) -> Needs:
        return Needs(logprobs=True, rewards=True, groups=True, policy=True)

    def advantages(self, completions: Completions) -> Tensor:
        return ReverseKL().advantages(completions) + 0.5 * GRPO().advantages(completions)

    def loss(self, tokens: Tokens) -> Tensor:
        return self.token_losses(tokens, tokens.advantages)


@pytest.mark.parametrize("kind", KINDS)
def test_policy_gradients_of_one_kind_add_up_to_that_of_their_advantages(
    kind: Kind, student: Student, teacher: Scorer
) -> None:
    noise = 0.0 if kind == "ppo" else 0.5  # clipping asks for the sign of each advantage, and of their sum
    batch = to_batch(judged(ALL, student, teacher, noise=noise), 0, 24)
    terms = {"teacher": Term(ReverseKL(kind=kind)), "reward": Term(GRPO(kind=kind), 0.5)}
    assert_same(step(student, batch, Weighted(terms=terms), teacher), step(student, batch, Summed(kind=kind), teacher))


def test_a_sum_within_a_sum_is_that_of_all_terms_under_their_products_of_weights(
    student: Student, teacher: Scorer
) -> None:
    flat = {n: Term(t.objective, 0.5 * t.weight, t.origin) for n, t in MIXTURE.terms.items()} | {"kl": Term(GKD())}
    own = Weighted(terms={"all": Term(MIXTURE.terms["teacher"].objective)})
    parts = {n: t for n, t in MIXTURE.terms.items() if n != "teacher"} | {"teacher": Term(own, origin="student")}
    nested = Weighted(terms={"kl": Term(GKD()), "parts": Term(Weighted(terms=parts), 0.5)})
    whole = Weighted(terms=flat)
    batch = to_batch(judged(Case("mixed", whole, mixed=True), student, teacher), 0, 24)
    assert_same(step(student, batch, nested, teacher), step(student, batch, whole, teacher))


def test_terms_of_one_origin_are_those_of_its_completions_alone(student: Student, teacher: Scorer) -> None:
    """Its share is that of tokens, or where all completions weigh the same, that of completions."""
    items = judged(Case("mixed", MIXTURE, mixed=True), student, teacher)
    whole = to_batch(items, 0, 24)
    parts = []
    for term in MIXTURE.terms.values():
        own = [s for s in items if s.rollout.origin == term.origin]
        alone = to_batch(own, 0, 24)
        by_tokens = getattr(term.objective, "length", "token") == "token"
        some = [sum(any(s.rollout.mask) for s in of) for of in (own, items)]
        share = term.weight * (alone.trained / whole.trained if by_tokens else some[0] / some[1])
        part = step(student, alone, term.objective, teacher)
        parts.append(Step(share * part.loss, [share * g for g in part.gradients]))
    together = Step(sum(p.loss for p in parts), [sum(g) for g in zip(*(p.gradients for p in parts), strict=True)])
    assert_same(step(student, whole, MIXTURE, teacher), together)


def test_a_part_of_the_source_that_wrote_nothing_adds_nothing(student: Student, teacher: Scorer) -> None:
    batch = to_batch(judged(Case("student", MIXTURE), student, teacher), 0, 24)
    everywhere = {n: Term(t.objective, t.weight) for n, t in MIXTURE.terms.items() if t.origin == "student"}
    assert_same(step(student, batch, MIXTURE, teacher), step(student, batch, Weighted(terms=everywhere), teacher))
