"""Samples of an older student: the gradient is that of the KL of the student of now, by summing over everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from opd.batch import to_batch
from opd.learner.student import Student
from opd.objectives import GKD, Gold, MiniLLM, ReverseKL, TopK
from opd.objectives.log_ratio import LogRatio
from opd.protocols import Objective
from opd.teaching import Scorer
from tests.objectives.cases import STALE, Case, assert_same, judged, step
from tests.objectives.exact import World, divergence_gradient, losses, sequence_kl_gradient

WORLD = World()
STUDENT, TEACHER = WORLD.policy(0), WORLD.policy(1)
OLD = (STUDENT + WORLD.policy(2, scale=0.5)).log_softmax(-1)
"""Log-probs of the weights that sampled: those of now are 0.4 to 2.9 times as probable."""
NOW = STUDENT.log_softmax(-1)


def reverse_kl(log_pi: Tensor, log_q: Tensor) -> Tensor:
    return (log_pi.exp() * (log_pi - log_q)).sum(-1)


def gradient(objective: Objective, weigh: Callable[[Tensor], Tensor] = torch.ones_like) -> Tensor:
    """Mean gradient [P, V] over completions of the older student; `weigh` takes the ratios of their tokens, [B, T]."""
    student = STUDENT.detach().requires_grad_()
    span = 1 if objective.needs.spans else 0
    loss = losses(WORLD, objective, student, TEACHER, OLD, OLD, WORLD.sequences, span=span)
    rows, tokens = WORLD.rows(WORLD.sequences)
    ratios = 1 + WORLD.spread((NOW - OLD)[rows, tokens].exp() - 1, WORLD.sequences)
    per_completion = (weigh(ratios) * loss).sum(1)
    return torch.autograd.grad((WORLD.probabilities(OLD) * per_completion).sum(), student)[0]


def off(got: Tensor, want: Tensor) -> float:
    """Largest difference, as a share of the largest entry."""
    return ((got - want).abs().max() / want.abs().max()).item()


BY_TOKEN: dict[str, LogRatio] = {
    "reverse_kl": ReverseKL(),
    "reverse_kl with baseline": ReverseKL(estimator="baseline"),
    "reverse_kl ppo": ReverseKL(kind="ppo", clip_low=1.0, clip_high=1e9),
    "reverse_kl cispo": ReverseKL(kind="cispo", clip_high=1e9),
    "reverse_kl truncated": ReverseKL(kind="truncated", ratio_cap=1e9),
    "minillm long term, gamma=0": MiniLLM(single_step=False, gamma=0.0),
    "gold, spans of one token": Gold(),
}


@pytest.mark.parametrize("name", BY_TOKEN)
def test_judged_now_it_is_the_gradient_at_every_position_where_the_older_student_led(name: str) -> None:
    objective = BY_TOKEN[name]
    want = divergence_gradient(WORLD, reverse_kl, STUDENT, TEACHER, OLD)
    assert off(gradient(replace(objective, student="now")), want) < 1e-9
    assert off(gradient(replace(objective, student="sampled")), want) > 0.05
    torch.testing.assert_close(gradient(objective), gradient(replace(objective, student="sampled")), rtol=0, atol=0)


@pytest.mark.parametrize(
    "objective",
    [ReverseKL(estimator="exact"), GKD(beta=1.0), MiniLLM(long_term=False), TopK(of="student", k=2)],
    ids=lambda o: type(o).__name__,
)
def test_what_compares_distributions_judges_the_student_of_now_as_it_is(objective: Objective) -> None:
    assert off(gradient(objective), divergence_gradient(WORLD, reverse_kl, STUDENT, TEACHER, OLD)) < 1e-9


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("chosen_by", [NOW, OLD], ids=["by now", "by the older student"])
@pytest.mark.parametrize("drawn_by", [NOW, OLD], ids=["of now", "of the older student"])
def test_a_servers_log_probs_of_any_students_likeliest_tokens_give_the_gradient_of_the_whole_kl(
    k: int, chosen_by: Tensor, drawn_by: Tensor
) -> None:
    student, objective = STUDENT.detach().requires_grad_(), TopK(of="student", k=k)
    loss = losses(WORLD, objective, student, TEACHER, drawn_by, chosen_by, WORLD.sequences, served=True).sum(1)
    got = torch.autograd.grad((WORLD.probabilities(drawn_by) * loss).sum(), student)[0]
    assert off(got, divergence_gradient(WORLD, reverse_kl, STUDENT, TEACHER, drawn_by)) < 1e-9


def surrogate_gradient(own: bool = True) -> Tensor:
    """Each token drawn by the student of now, all before and after it by the older one; later ones judged by now."""
    student = STUDENT.detach().requires_grad_()
    log_pi, log_q, mu = student.log_softmax(-1), TEACHER.log_softmax(-1), OLD.exp()
    costs = NOW - log_q

    def later(prefix: tuple[int, ...]) -> Tensor:
        """Mean of the costs of what follows."""
        row = WORLD.prefixes.get(prefix)
        if row is None:
            return torch.zeros((), dtype=torch.float64)
        return sum(
            (mu[row, v] * (costs[row, v] + later((*prefix, v))) for v in range(WORLD.vocabulary)), torch.zeros(())
        )

    value = torch.stack([torch.stack([later((*p, v)) for v in range(WORLD.vocabulary)]) for p in WORLD.prefixes])
    loss = WORLD.reach(OLD)[:, None] * log_pi.exp() * (own * costs + value)
    return torch.autograd.grad(loss.sum(), student)[0]


SUMS: dict[str, LogRatio] = {
    "reverse_kl": ReverseKL(discount=1.0),
    "reverse_kl with baseline": ReverseKL(discount=1.0, estimator="baseline"),
    "minillm sampled": MiniLLM(single_step=False, length_normalised=False),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_over_later_tokens_are_as_the_older_student_went_on_judged_by_now(name: str) -> None:
    want = surrogate_gradient()
    assert off(gradient(replace(SUMS[name], student="now")), want) < 1e-9
    assert off(gradient(SUMS[name]), want) > 0.05


def test_beside_an_exact_step_the_sums_begin_one_later() -> None:
    whole = replace(SUMS["minillm sampled"], single_step=True, student="now")
    want = surrogate_gradient(own=False) + divergence_gradient(WORLD, reverse_kl, STUDENT, TEACHER, OLD)
    assert off(gradient(whole), want) < 1e-9


@pytest.mark.parametrize("name", SUMS)
def test_weighed_as_whole_completions_they_have_the_gradient_of_the_sequences_kl(name: str) -> None:
    def whole(ratios: Tensor) -> Tensor:
        """What is missing from the weight of a token, which has its own ratio, to that of its completion."""
        return ratios.prod(1, keepdim=True) / ratios

    want = sequence_kl_gradient(WORLD, STUDENT, TEACHER)
    assert off(gradient(replace(SUMS[name], student="now"), whole), want) < 1e-9
    assert off(gradient(SUMS[name], whole), want) > 0.05
    assert off(gradient(replace(SUMS[name], student="now")), want) > 0.05  # the token's own ratio is not all of it


@pytest.mark.parametrize("case", STALE, ids=lambda c: c.name)
def test_where_the_student_of_now_wrote_the_two_are_the_same(case: Case, student: Student, teacher: Scorer) -> None:
    plain = case.objective
    if isinstance(plain, LogRatio):
        plain = replace(plain, student="sampled")
    batch = to_batch(judged(case, student, teacher, noise=0.0), 0, 24)
    assert_same(step(student, batch, case.objective, teacher), step(student, batch, plain, teacher))
