"""The mean gradient of every sampled estimator is the exact gradient that it claims, by summing over everything."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from opd.objectives import (
    GKD,
    GRPO,
    SFT,
    Constant,
    MiniLLM,
    ReverseKL,
    Term,
    TopK,
    Unsure,
    Weighted,
    k1,
    k2,
    k3,
    top_k_student,
)
from opd.objectives.policy_gradient import Kind
from opd.objectives.top_k import Of
from opd.protocols import Objective
from tests.objectives.exact import (
    Divergence,
    World,
    divergence_gradient,
    expected_gradient,
    losses,
    sequence_kl_gradient,
)

WORLD = World()
STUDENT, TEACHER = WORLD.policy(0), WORLD.policy(1)
KINDS: tuple[Kind, ...] = ("importance_sampling", "ppo", "cispo", "truncated")
OF: tuple[Of, ...] = ("teacher", "student", "union")
BETAS = (0.0, 0.5, 1.0)


def assert_same(got: Tensor, want: Tensor) -> None:
    assert want.abs().max() > 1e-3
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-9)


def forward_kl(log_pi: Tensor, log_q: Tensor) -> Tensor:
    return (log_q.exp() * (log_q - log_pi)).sum(-1)


def reverse_kl(log_pi: Tensor, log_q: Tensor) -> Tensor:
    return (log_pi.exp() * (log_pi - log_q)).sum(-1)


def jsd(beta: float) -> Divergence:
    def divergence(log_pi: Tensor, log_q: Tensor) -> Tensor:
        log_m = (beta * log_q.exp() + (1 - beta) * log_pi.exp()).log()
        return beta * reverse_kl(log_q, log_m) + (1 - beta) * reverse_kl(log_pi, log_m)

    return divergence if 0 < beta < 1 else (forward_kl, reverse_kl)[int(beta)]


def merged(k: int, divergence: Divergence) -> Divergence:
    """Of the distributions over the teacher's top-k and "any other"."""

    def coarse(log_pi: Tensor, log_q: Tensor) -> Tensor:
        order = log_q.argsort(-1, descending=True)
        p, q = (x.exp().gather(-1, order) for x in (log_pi, log_q))
        p, q = (torch.cat([x[:, :k], x[:, k:].sum(-1, keepdim=True)], dim=-1).log() for x in (p, q))
        return divergence(p, q)

    return coarse


def united(k: int, divergence: Divergence) -> Divergence:
    """Of the distributions over what is in either top-k, and "any other"."""

    def coarse(log_pi: Tensor, log_q: Tensor) -> Tensor:
        out = []
        for p, q in zip(log_pi, log_q, strict=True):
            both = sorted({*p.topk(k).indices.tolist(), *q.topk(k).indices.tolist()})
            rest = [v for v in range(len(p)) if v not in both]
            parts = [torch.cat([x[both].exp(), x[rest].exp().sum(0, keepdim=True)[: len(rest)]]).log() for x in (p, q)]
            out.append(divergence(*parts))
        return torch.stack(out)

    return coarse


def entropy_aware(log_pi: Tensor, log_q: Tensor) -> Tensor:
    unsure = -(log_q.exp() * log_q).sum(-1) > 1.0
    assert 0 < unsure.sum() < len(unsure)
    return reverse_kl(log_pi, log_q) + 0.5 * unsure * forward_kl(log_pi, log_q)


AWARE = Weighted(terms={"reverse": Term(ReverseKL()), "forward": Term(Unsure(1.0), 0.5)})
CLAIMS: list[tuple[str, Objective, Divergence]] = [
    *((f"reverse_kl sampled {k}", ReverseKL(kind=k), reverse_kl) for k in KINDS),
    *((f"reverse_kl baseline {k}", ReverseKL(estimator="baseline", kind=k), reverse_kl) for k in KINDS),
    ("reverse_kl exact", ReverseKL(estimator="exact"), reverse_kl),
    ("reverse_kl coef", ReverseKL(estimator="baseline", coef=0.3), lambda p, q: 0.3 * reverse_kl(p, q)),
    *((f"gkd {b}", GKD(beta=b), jsd(b)) for b in (0.0, 0.1, 0.5, 0.9, 1.0)),
    *((f"top_k of=teacher {k} {b}", TopK(k=k, beta=b), merged(k, jsd(b))) for k in (1, 2, 3) for b in BETAS),
    *((f"top_k of=student {n} {k}", TopK(of="student", k=n, kind=k), reverse_kl) for n in (1, 2, 4, 9) for k in KINDS),
    *((f"top_k of=union {n} {b}", TopK(of="union", k=n, beta=b), united(n, jsd(b))) for n in (1, 2) for b in BETAS),
    *((f"reverse_kl {of} {k}", ReverseKL(estimator="top_k", of=of, k=k), reverse_kl) for of in OF for k in (1, 3)),
    ("minillm single step", MiniLLM(long_term=False), reverse_kl),
    ("minillm long term, gamma=0", MiniLLM(single_step=False, gamma=0.0), reverse_kl),
    ("entropy aware", AWARE, entropy_aware),
    ("minillm, gamma=0", MiniLLM(gamma=0.0), reverse_kl),
]  # fmt: skip


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("tail", [True, False])
def test_in_a_sum_each_term_looks_at_as_many_of_the_teachers_tokens_as_it_says(beta: float, tail: bool) -> None:
    few = TopK(k=1, beta=beta if tail else 0.0, tail=tail)
    terms: dict[str, Objective] = {"few": few, "many": TopK(k=3, beta=beta)}
    policy = STUDENT.log_softmax(-1)

    def loss(objective: Objective) -> Tensor:
        return losses(WORLD, objective, STUDENT, TEACHER, policy, policy, WORLD.sequences)

    both = Weighted(terms={name: Term(objective) for name, objective in terms.items()})
    torch.testing.assert_close(loss(both), sum(map(loss, terms.values())), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("objective", "divergence"), [c[1:] for c in CLAIMS], ids=[c[0] for c in CLAIMS])
def test_the_mean_gradient_on_policy_is_that_of_the_divergence(objective: Objective, divergence: Divergence) -> None:
    assert_same(
        expected_gradient(WORLD, objective, STUDENT, TEACHER), divergence_gradient(WORLD, divergence, STUDENT, TEACHER)
    )


@pytest.mark.parametrize("objective", [
    TopK(of="student", k=2), TopK(of="union", k=1), TopK(of="union", k=2, beta=0.5),
    *(ReverseKL(estimator="top_k", of=of, k=2) for of in ("student", "union")),
], ids=str)  # fmt: skip
def test_a_server_gives_what_the_whole_distribution_does(objective: Objective) -> None:
    assert_same(
        expected_gradient(WORLD, objective, STUDENT, TEACHER, served=True),
        expected_gradient(WORLD, objective, STUDENT, TEACHER),
    )


@pytest.mark.parametrize(
    "objective",
    [
        ReverseKL(),
        ReverseKL(estimator="baseline"),
        ReverseKL(estimator="top_k", k=1),
        MiniLLM(single_step=False, gamma=0.0),
        TopK(of="student", k=2),
    ],
    ids=lambda o: type(o).__name__,
)
def test_the_ratio_makes_up_for_another_policy_that_wrote_the_tokens(objective: Objective) -> None:
    mixed = (0.3 * TEACHER.softmax(-1) + 0.7 * STUDENT.softmax(-1)).log()
    assert_same(
        expected_gradient(WORLD, objective, STUDENT, TEACHER, mixed),
        divergence_gradient(WORLD, reverse_kl, STUDENT, TEACHER, mixed),
    )


@pytest.mark.parametrize(
    "objective",
    [
        ReverseKL(discount=1.0),
        ReverseKL(discount=1.0, estimator="baseline"),
        MiniLLM(single_step=False, length_normalised=False),
        MiniLLM(length_normalised=False),
    ],
    ids=["reverse_kl", "reverse_kl with baseline", "minillm sampled", "minillm"],
)
def test_undiscounted_the_mean_gradient_is_that_of_the_sequences_kl(objective: Objective) -> None:
    want = sequence_kl_gradient(WORLD, STUDENT, TEACHER)
    assert_same(expected_gradient(WORLD, objective, STUDENT, TEACHER), want)


def test_a_baseline_lowers_the_variance_and_one_from_a_few_tokens_nearly_as_much() -> None:
    world = World(vocabulary=12, length=1)

    def second_moment(objective: Objective) -> Tensor:
        """Mean square of the gradient of one sample."""
        total = torch.zeros((), dtype=torch.float64)
        for seed in range(8):
            student, teacher = world.policy(seed).requires_grad_(), world.policy(seed + 100)
            policy = student.detach().log_softmax(-1)
            rows = losses(world, objective, student, teacher, policy, policy, world.sequences)[:, 0]
            squares = [torch.autograd.grad(row, student, retain_graph=True)[0].square().sum() for row in rows]
            total += (world.probabilities(policy) * torch.stack(squares)).sum()
        return total

    plain, whole, exact = (second_moment(ReverseKL(estimator=e)) for e in ("sampled", "baseline", "exact"))
    few = [second_moment(ReverseKL(estimator="top_k", of=of, k=4)) for of in OF]
    assert exact < whole < 0.8 * plain
    assert all(abs(part - whole) < 0.1 * (plain - whole) for part in few)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_advantage_has_no_mean_gradient(kind: Kind) -> None:
    assert expected_gradient(WORLD, Constant(kind=kind), STUDENT, TEACHER).abs().max() < 1e-12


def test_an_exact_step_and_its_sample_together_would_count_it_twice() -> None:
    twice = Weighted(terms={
        "step": Term(MiniLLM(long_term=False)), "long": Term(MiniLLM(single_step=False, length_normalised=False)),
    })  # fmt: skip
    got = expected_gradient(WORLD, twice, STUDENT, TEACHER)
    once = divergence_gradient(WORLD, reverse_kl, STUDENT, TEACHER)
    assert_same(got - once, sequence_kl_gradient(WORLD, STUDENT, TEACHER))


def test_cross_entropy_on_the_teachers_tokens_is_the_forward_kl() -> None:
    by_teacher = TEACHER.log_softmax(-1)
    assert_same(
        expected_gradient(WORLD, SFT(), STUDENT, TEACHER, by_teacher),
        divergence_gradient(WORLD, forward_kl, STUDENT, TEACHER, by_teacher),
    )


@pytest.mark.parametrize("k", [1, 2, 3])
def test_differentiating_the_value_of_the_students_top_k_would_be_wrong(k: int) -> None:
    world = World(length=1)
    logits, teacher = world.policy(0).requires_grad_(), world.policy(1)
    pi, want = logits.detach().softmax(-1)[0], divergence_gradient(world, reverse_kl, logits, teacher)
    tokens, rows = torch.arange(4)[None], (1, 4, 4)
    values = top_k_student(logits.expand(rows), teacher.expand(rows), tokens, torch.ones(1, 4), k)[0]
    torch.testing.assert_close((pi * values).sum(), reverse_kl(*(x.log_softmax(-1) for x in (logits, teacher)))[0])
    naive = torch.autograd.grad((pi * values).sum(), logits)[0]
    assert (naive - want).abs().max() > 0.01 * want.abs().max()


@pytest.mark.parametrize(
    ("loss", "divergence"), [(k2, reverse_kl), (k3, forward_kl)], ids=["k2 reverse KL", "k3 forward KL"]
)
def test_a_kl_estimator_as_a_loss_has_the_gradient_of(loss: Divergence, divergence: Divergence) -> None:
    logits = STUDENT.clone().requires_grad_()
    values = loss(logits.log_softmax(-1), TEACHER.log_softmax(-1))
    got = torch.autograd.grad((STUDENT.softmax(-1) * values).sum(), logits)[0]
    want = torch.autograd.grad(divergence(logits.log_softmax(-1), TEACHER.log_softmax(-1)).sum(), logits)[0]
    assert_same(got, want)


def test_k1_as_a_loss_has_no_gradient() -> None:
    logits = STUDENT.clone().requires_grad_()
    values = k1(logits.log_softmax(-1), TEACHER.log_softmax(-1))
    got = torch.autograd.grad((STUDENT.softmax(-1) * values).sum(), logits)[0]
    assert got.abs().max() < 1e-12


def test_as_estimates_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    log_pi, log_q = STUDENT.log_softmax(-1), TEACHER.log_softmax(-1)
    means = [(log_pi.exp() * k(log_pi, log_q)).sum(-1) for k in (k1, k2, k3)]
    want = reverse_kl(log_pi, log_q)
    torch.testing.assert_close(means[0], want)
    torch.testing.assert_close(means[2], want)
    assert (means[1] - want).abs().max() > 0.1
    assert (k2(log_pi, log_q) >= 0).all()
    assert (k3(log_pi, log_q) >= 0).all()


@pytest.mark.parametrize("size", [2, 3])
def test_grpo_without_std_climbs_the_mean_reward(size: int) -> None:
    world = World(vocabulary=3, length=2)
    student, teacher = world.policy(0).requires_grad_(), world.policy(1)
    reward = {s: float(i % 3 == 1) + 0.25 * len(s) for i, s in enumerate(world.sequences)}
    p, log_pi = world.probabilities(student.log_softmax(-1)), student.detach().log_softmax(-1)
    expected = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(len(world.sequences)), repeat=size):
        sequences = [world.sequences[i] for i in group]
        rewards = torch.tensor([reward[s] for s in sequences])
        loss = losses(world, GRPO(std=False), student, teacher, log_pi, log_pi, sequences, rewards)
        expected = expected + p[list(group)].prod().detach() * loss.sum() / size
    mean_reward = (p * torch.tensor([reward[s] for s in world.sequences])).sum()
    got, want = (torch.autograd.grad(x, student, retain_graph=True)[0] for x in (expected, mean_reward))
    # The group's mean holds the sample itself: a share of 1 / size of what it should be compared with.
    torch.testing.assert_close(got, -want * (size - 1) / size, atol=1e-7, rtol=1e-6)
