"""Weights on tokens: values by hand, limits that give the plain method back, what is refused."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from opd.batch import split_steps, to_batch
from opd.learner.student import Student
from opd.needs import Needs
from opd.objectives import (
    GKD,
    SFT,
    Cap,
    Constant,
    Gold,
    MiniLLM,
    Position,
    ReverseKL,
    Share,
    Shuffled,
    Term,
    TopK,
    Unsure,
    Weighted,
    position_weights,
    share_weights,
)
from opd.objectives.weights.share import either, random_scores
from opd.protocols import Objective, TokenWeight
from opd.teaching import Scorer
from opd.tensors import Completions
from opd.types import UserError
from tests.objectives.cases import Case, Step, judged, step, weighed
from tests.objectives.exact import World, entropy, losses
from tests.tiny import rollouts, scored

MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()


def table(gaps: Tensor, mask: Tensor, entropy: Tensor | None = None) -> Completions:
    """Completions whose teacher finds each token so much likelier."""
    zeros, n = torch.zeros(mask.shape), len(mask)
    return Completions(
        zeros, zeros, gaps.float(), zeros, zeros.long() - 1, mask, torch.zeros(n), torch.zeros(n).long(),
        ("student",) * n, torch.arange(n), current_logprobs=zeros, current_entropy=entropy,
    )  # fmt: skip


def drawn(mask: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_position_weights_are_those_of_the_formula() -> None:
    gaps = drawn(MASK)
    gaps[~MASK] = torch.nan
    got = Position(0.7).weigh(table(gaps, MASK))
    for row in range(3):
        places = MASK[row].nonzero()[:, 0].tolist()
        sizes = [abs(float(gaps[row, t].float())) for t in places]
        for i, t in enumerate(places):
            assert got[row, t].item() == pytest.approx(1 + 0.7 * (1 - sum(sizes[:i]) / sum(sizes)), rel=1e-6)
    assert got[:3, 0].tolist() == pytest.approx([1.7] * 3)
    assert got.isfinite().all()


def test_position_weights_of_what_nobody_disagrees_on_are_one() -> None:
    assert position_weights(torch.zeros(2, 3), 5.0).eq(1.0).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.floats(0.01, 1), st.integers(0, 5))
def test_the_weights_of_a_share_are_n_over_k_on_the_k_highest_and_add_up_to_n(
    lengths: list[int], share: float, seed: int
) -> None:
    mask = torch.tensor([[t < n for t in range(9)] for n in lengths])
    scores = drawn(mask, seed)
    got = share_weights(scores, mask, share)
    assert got.sum(1).tolist() == pytest.approx(list(map(float, lengths)))
    for row, n in enumerate(lengths):
        k = math.ceil(share * n - 1e-9)
        best = sorted(range(n), key=lambda t: -scores[row, t])[:k]
        want = [n / k if t in best else 0.0 for t in range(9)]
        assert got[row].tolist() == pytest.approx(want)


@pytest.mark.parametrize(
    ("share", "n", "k"), [(0.1, 10, 1), (0.07, 100, 7), (0.29, 100, 29), (0.5, 3, 2), (1e-9, 5, 1)]
)
def test_a_share_is_rounded_up_and_not_by_its_rounding(share: float, n: int, k: int) -> None:
    mask = torch.ones(1, n).bool()
    assert (share_weights(drawn(mask), mask, share) > 0).sum() == k


def test_what_a_share_is_chosen_by() -> None:
    mask = torch.ones(1, 6).bool()
    entropy = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    gaps = torch.tensor([[0.1, -0.2, 0.3, 0.4, 0.5, -3.0]])
    made = table(gaps, mask, entropy)

    def chosen(share: float, by: str) -> list[int]:
        return Share(share, by).weigh(made)[0].nonzero()[:, 0].tolist()

    assert chosen(0.5, "entropy") == [0, 1, 2]
    assert chosen(0.3, "divergence") == [4, 5]
    assert chosen(2 / 6, "both") == [0, 5]
    assert chosen(4 / 6, "both") == [0, 1, 4, 5]
    assert len(chosen(0.5, "random")) == 3


def test_of_two_tokens_with_one_place_the_better_in_the_other_order_is_chosen() -> None:
    mask = torch.ones(1, 3).bool()
    first, second = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[3.0, 1.0, 2.0]])
    assert either(first, second, mask).argmax() == 0
    assert either(first + torch.tensor([[0.0, 0.0, 5.0]]), second, mask).argsort(descending=True).tolist() == [
        [2, 0, 1]
    ]


def test_a_random_share_is_a_samples_own_wherever_it_lies_and_another_with_another_seed() -> None:
    mask, seeds = torch.ones(4, 50).bool(), torch.tensor([7, 8, 9, 7])
    scores = random_scores(seeds, mask, 0)
    assert torch.equal(scores[0], scores[3])
    assert not torch.equal(scores[0], scores[1])
    assert torch.equal(random_scores(seeds[1:], mask[1:, :40], 0), scores[1:, :40])
    assert not torch.equal(random_scores(seeds, mask, 1), scores)
    assert scores.min() >= 0
    assert scores.max() < 1


def test_the_entropy_of_the_student_of_now_is_that_of_its_logits(student: Student, teacher: Scorer) -> None:
    objective = weighed(SFT(), Share(by="entropy"))
    items = judged(Case("entropy", objective), student, teacher)
    found = student.completions(to_batch(items, 0, 24), objective)
    assert found.current_entropy is not None
    for row, s in enumerate(items):
        n, ids = len(s.rollout.tokens), [*s.rollout.prompt.tokens, *s.rollout.tokens]
        log_pi = (student.model(torch.tensor([ids])).logits[0].double() / student.temperature).log_softmax(-1)
        want = -(log_pi.exp() * log_pi).sum(-1)[len(ids) - n - 1 : -1].detach()
        got = found.current_entropy[row]
        torch.testing.assert_close(got[:n].double(), want[:n], atol=1e-5, rtol=1e-5)
        assert (got[n:] == 0).all()
    plain = student.completions(to_batch(items, 0, 24), ReverseKL(student="now", discount=0.5))
    assert plain.current_entropy is None


def test_what_is_drawn_for_a_sample_that_comes_again_is_drawn_again() -> None:
    """A dataset's completion, or a recorded one, is the same in every epoch: other tokens of it are to have a turn."""
    items = scored(rollouts([(3, 20), (2, 20)]))
    found = [split_steps(items, 1, 0, number=step)[0](64).completions for step in (0, 0, 40)]
    first, same, later = (random_scores(c.seeds, c.mask, 0) for c in found)
    assert torch.equal(first, same)
    assert not any((first == later).all(1))


def test_each_sample_has_its_own_seed(student: Student, teacher: Scorer) -> None:
    items = judged(Case("any", ReverseKL()), student, teacher, [(3, 5), (3, 5), (3, 5), (2, 5)])
    seeds = to_batch(items, 0, 24).completions.seeds
    assert len(set(seeds.tolist())) == 4
    back = to_batch(items[::-1], 0, 24).completions.seeds
    assert torch.equal(back.flip(0), seeds)
    later = [replace(s, rollout=replace(s.rollout, version=1)) for s in items]
    assert not set(seeds.tolist()) & set(to_batch(later, 0, 24).completions.seeds.tolist())


def test_over_all_draws_a_random_share_is_the_plain_gradient() -> None:
    mask = torch.ones(1, 5).bool()
    scores = torch.tensor(list(itertools.permutations(range(5)))).float()
    for share in (0.2, 0.5, 1.0):
        mean = share_weights(scores, mask.expand(scores.shape), share).double().mean(0)
        torch.testing.assert_close(mean, torch.ones(5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_cap_on_reverse_kl_is_its_clip() -> None:
    made = table(5 * drawn(MASK), MASK)
    own, cut = ReverseKL().advantages(made), ReverseKL(clip=2.0).advantages(made)
    assert (own.abs() > 2).any()
    torch.testing.assert_close(own * Cap(2.0).weigh(made), cut.clamp(-2, 2))
    assert Cap(100.0).weigh(made).eq(1).all()


def by_formula(rule: TokenWeight, gaps: list[float], entropies: list[float]) -> list[float]:
    """Weights of one sequence's tokens, in words."""
    n, sizes = len(gaps), [abs(r) for r in gaps]
    match rule:
        case Position(g):
            return [1 + g * (1 - sum(sizes[:t]) / sum(sizes)) for t in range(n)]
        case Cap(most):
            return [min(1.0, most / size) for size in sizes]
        case Share(share, by):
            scores = {"entropy": entropies, "divergence": sizes}[by]
            best = sorted(range(n), key=lambda t: -scores[t])[: math.ceil(share * n)]
            return [n / len(best) if t in best else 0.0 for t in range(n)]
    raise AssertionError(rule)


@pytest.mark.parametrize("rule", [Position(0.7), Cap(0.8), Share(0.5, "entropy"), Share(0.5, "divergence")], ids=str)
@pytest.mark.parametrize("plain", [ReverseKL(), GKD(beta=0.3), MiniLLM()], ids=lambda o: type(o).__name__)
def test_a_weighed_loss_and_its_gradient_are_the_plain_ones_times_the_formula(
    rule: TokenWeight, plain: Objective
) -> None:
    world = World(vocabulary=3, length=3)
    student, teacher = world.policy(0).requires_grad_(), world.policy(1)
    log_pi, log_q = student.detach().log_softmax(-1), teacher.log_softmax(-1)
    weights = torch.zeros(len(world.sequences), world.length, dtype=torch.float64)
    for i, sequence in enumerate(world.sequences):
        rows, tokens = world.rows([sequence])
        gaps = (log_q - log_pi)[rows, tokens].tolist()
        own = by_formula(rule, gaps, entropy(student.detach())[rows].tolist())
        weights[i, : len(own)] = torch.tensor(own, dtype=torch.float64)
    assert weights.unique().numel() > 2
    ours, theirs = (
        losses(world, o, student, teacher, log_pi, log_pi, world.sequences) for o in (weighed(plain, rule), plain)
    )
    torch.testing.assert_close(ours, weights * theirs, atol=1e-6, rtol=1e-6)
    p = world.probabilities(log_pi)
    got, want = (
        torch.autograd.grad((p * x.sum(1)).sum(), student, retain_graph=True)[0] for x in (ours, weights * theirs)
    )
    assert want.abs().max() > 1e-3
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)


PLAIN: dict[str, Objective] = {
    "reverse_kl": ReverseKL(kind="ppo"), "gkd": GKD(beta=0.3), "minillm": MiniLLM(gamma=0.9), "top_k": TopK(k=4),
    "sft": SFT(),
}  # fmt: skip


def assert_equal(a: Step, b: Step) -> None:
    assert b.size > 1e-3
    assert a.loss == b.loss
    assert all(map(torch.equal, a.gradients, b.gradients))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("rule", [Position(0.0), Share(1.0, "random"), Share(1.0, "both"), Cap(1e6)], ids=str)
def test_weights_of_one_are_the_plain_method_to_the_bit(
    name: str, rule: Position, student: Student, teacher: Scorer
) -> None:
    plain = PLAIN[name]
    objective = weighed(plain, rule)
    batch = to_batch(judged(Case(name, objective), student, teacher), 0, 54)
    assert_equal(step(student, batch, objective, teacher), step(student, batch, plain, teacher))


@pytest.mark.parametrize(
    ("objective", "needs"),
    [
        (Constant(), Needs(policy=True)),
        (Shuffled(), Needs(logprobs=True, policy=True)),
        (Unsure(), Needs(distribution=True)),
        (weighed(SFT(), Position()), Needs(logprobs=True, policy=True)),
        (weighed(SFT(), Cap()), Needs(logprobs=True, policy=True)),
        (weighed(SFT(), Share(by="random")), Needs()),
        (weighed(SFT(), Share(by="entropy")), Needs(current=True, entropy=True)),
        (weighed(SFT(), Share(by="divergence")), Needs(logprobs=True, policy=True)),
        (weighed(GKD(), Share(by="both")), Needs(True, True, policy=True, current=True, entropy=True)),
    ],
    ids=str,
)
def test_what_weights_and_controls_need(objective: Objective, needs: Needs) -> None:
    assert objective.needs == needs


def test_weights_on_the_tokens_of_byte_spans_are_refused() -> None:
    for objective in (Gold(), Gold(method="uld"), Weighted(terms={"a": Term(Gold())})):
        with pytest.raises(ValueError, match=r"tokens: 0 cannot weigh tokens of byte spans.*; allowed"):
            weighed(objective, Share())


def test_weights_by_what_the_student_said_are_refused_on_tokens_of_others() -> None:
    made = replace(
        table(drawn(MASK), MASK), behavior_logprobs=torch.full(MASK.shape, torch.nan), origins=("dataset",) * 4
    )
    term = Term(SFT(), origin="dataset", tokens={"a": Position()})
    assert not term.needs.policy
    with pytest.raises(UserError, match=r"objective.terms.kl.origin=dataset: .*student wrote"):
        Weighted(terms={"kl": term}).advantages(made)
