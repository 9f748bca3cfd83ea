"""Reverse KL with something added or taken away, and the controls: values, and limits that give it back."""

from __future__ import annotations

import itertools

import pytest
import torch

from opd.batch import to_batch
from opd.learner.student import Student
from opd.objectives import GKD, EntropyKept, ReverseKL, Shuffled, Term, Unsure, Weighted
from opd.objectives.entropy_kept import contracts
from opd.objectives.shuffled import shuffle
from opd.teaching import Scorer
from opd.tensors import Tokens
from tests.objectives.cases import Case, judged, step
from tests.objectives.test_weights import MASK, assert_equal, drawn, table


@pytest.mark.parametrize(
    ("threshold", "plain"),
    [(0.0, {"a": Term(ReverseKL()), "b": Term(GKD(beta=0.0), 0.7)}), (99.0, {"a": Term(ReverseKL())})],
    ids=["everywhere", "nowhere"],
)
def test_an_unsure_teacher_adds_the_forward_kl(
    threshold: float, plain: dict[str, Term], student: Student, teacher: Scorer
) -> None:
    ours = Weighted(terms={"a": Term(ReverseKL()), "b": Term(Unsure(threshold), 0.7)})
    batch = to_batch(judged(Case("unsure", ours), student, teacher), 0, 54)
    assert_equal(step(student, batch, ours, teacher), step(student, batch, Weighted(terms=plain), teacher))


def test_advantages_that_lower_the_entropy_are_scaled_and_no_others() -> None:
    logits = drawn(torch.ones(6, 5), 3)
    log_pi, adv = logits.log_softmax(-1), drawn(torch.ones(6, 5), 4)
    entropy = -(log_pi.exp() * log_pi).sum(-1)
    # Of a step along the advantages, by difference: -E[A (log pi + H)].
    eta = 1e-5
    moved = (log_pi + eta * adv).log_softmax(-1), (log_pi - eta * adv).log_softmax(-1)
    up, down = (-(p.exp() * p).sum(-1) for p in moved)
    want = -(log_pi.exp() * adv * (log_pi + entropy[:, None])).sum(-1)
    torch.testing.assert_close((up - down) / (2 * eta), want, atol=1e-8, rtol=1e-6)
    tokens = torch.arange(6) % 5
    chosen, logprobs = adv[torch.arange(6), tokens], log_pi[torch.arange(6), tokens]
    less = contracts(chosen, logprobs, entropy)
    assert 0 < less.sum() < 6
    assert torch.equal(less, (chosen > 0) == (logprobs > -entropy))
    made = Tokens(logprobs, logprobs, logprobs, logits=logits, tokens=tokens, logprobs=logprobs, advantages=chosen)
    plain = ReverseKL().loss(made)
    torch.testing.assert_close(EntropyKept(contracting=0.3).loss(made), plain * (1 - 0.7 * less.double()))


def test_with_a_scale_of_one_no_entropy_is_kept(student: Student, teacher: Scorer) -> None:
    plain, kept = ReverseKL(kind="ppo"), EntropyKept(kind="ppo", contracting=1.0)
    batch = to_batch(judged(Case("kept", kept), student, teacher), 0, 54)
    assert_equal(step(student, batch, kept, teacher), step(student, batch, plain, teacher))
    with pytest.raises(ValueError, match=r"estimator=exact: .*; allowed is estimator=sampled, baseline or top_k"):
        EntropyKept(estimator="exact")


def test_shuffled_advantages_are_a_sequences_own_in_another_order() -> None:
    mask = torch.cat([torch.ones(1, 5).bool(), MASK])
    gaps = drawn(mask).float()
    made = table(gaps, mask)
    got, own = Shuffled(coef=0.5).advantages(made), ReverseKL(coef=0.5).advantages(made)
    assert not torch.equal(got, own)
    assert torch.equal(got.sort(1).values, own.sort(1).values)
    assert (got[~mask] == 0).all()
    assert not torch.equal(Shuffled(coef=0.5, seed=1).advantages(made), got)


def test_every_order_is_drawn_as_often_as_any_other() -> None:
    values, n = torch.tensor([[0.0, 1.0, 2.0]]), 6000
    got = shuffle(values.expand(n, 3), torch.ones(n, 3).bool(), torch.arange(n))
    counts = [(got == torch.tensor(order).float()).all(1).sum().item() for order in itertools.permutations(range(3))]
    assert sum(counts) == n
    assert all(abs(c - n / 6) < 5 * (n * 5 / 36) ** 0.5 for c in counts)
