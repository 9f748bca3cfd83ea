"""What an objective asks for, what it refuses, and the advantages that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd.batch import split_steps
from opd.needs import Needs, Provides
from opd.objectives import GKD, GRPO, SFT, Gold, MiniLLM, ReverseKL, Term, TopK, Weighted, group_advantages
from opd.objectives.top_k import log_remainder
from opd.tensors import Completions
from opd.types import UserError
from tests.objectives.cases import MIXTURE
from tests.tiny import rollouts, scored

Length = Literal["token", "sequence", "constant"]
WHOLE = Needs(distribution=True)
SAMPLED = Needs(logprobs=True, policy=True)
REWARDED = Needs(rewards=True, groups=True, policy=True)


@pytest.mark.parametrize(
    ("objective", "needs"),
    [
        (SFT(), Needs()),
        (GKD(), WHOLE),
        (GRPO(), REWARDED),
        (TopK(k=7), Needs(top_k=7)),
        (TopK(of="student", k=7), SAMPLED | Needs(student_top_k=7)),
        (TopK(of="union", k=7), Needs(top_k=7, student_top_k=7)),
        (ReverseKL(estimator="top_k", of="teacher", k=7), SAMPLED | Needs(top_k=7)),
        (ReverseKL(estimator="top_k"), SAMPLED | Needs(student_top_k=20)),
        (MiniLLM(), WHOLE | SAMPLED),
        (MiniLLM(long_term=False), WHOLE),
        (MiniLLM(single_step=False), SAMPLED),
        (Weighted(terms={"a": Term(GKD()), "b": Term(TopK(k=3)), "c": Term(TopK(k=5))}), WHOLE | Needs(top_k=5)),
        (Weighted(terms={"kl": Term(ReverseKL()), "r": Term(GRPO())}), SAMPLED | REWARDED),
        (ReverseKL(student="now"), SAMPLED),
        (ReverseKL(student="now", discount=0.5), SAMPLED | Needs(current=True)),
        (ReverseKL(student="now", estimator="exact"), Needs(logprobs=True, distribution=True)),
        (MiniLLM(student="now", single_step=False), SAMPLED | Needs(current=True)),
        (MiniLLM(student="now", long_term=False), WHOLE),
        (Gold(student="now"), Needs(spans=True, policy=True, current=True)),
        (Gold(student="now", method="uld"), Needs(spans=True, distribution=True)),
        (MIXTURE, Needs(logprobs=True, rewards=True, groups=True, origins=frozenset({"student", "dataset"}))),
    ],
    ids=str,
)
def test_what_an_objective_needs(objective: GKD, needs: Needs) -> None:
    assert objective.needs == needs


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TopK(tail=False), "tail=false: .*mass has left the top-k; allowed is tail=true"),
        (lambda: TopK(tail=False, beta=0.5), "tail=false"),
        (lambda: TopK(of="student", tail=False), "tail=false"),
        (lambda: TopK(of="union", tail=False, beta=0.0), "tail=false: of=union .*allowed is tail=true"),
        (lambda: ReverseKL(k=3), "k=3: it is not read with estimator=sampled; allowed is estimator=top_k"),
        (lambda: ReverseKL(estimator="top_k", to="reference"), "to=reference: .*allowed is estimator=sampled"),
        (lambda: TopK(of="student", beta=0.0), "beta=0: .*allowed is beta=1"),
        (lambda: MiniLLM(single_step=False, long_term=False), "long_term=false: nothing is learned"),
        (lambda: ReverseKL(estimator="exact", student="sampled"), "student=sampled: .*of now; allowed is now"),
        (lambda: MiniLLM(long_term=False, student="sampled"), "student=sampled: .*of now; allowed is now"),
        (lambda: Gold(method="hybrid", student="sampled"), "student=sampled: method=hybrid .*; allowed is now"),
        (lambda: GRPO(length="constant"), "max_tokens=null: .*sampling.max_tokens"),
        (lambda: Weighted(terms={}), "terms: at least one"),
    ],
)
def test_refused_with_the_reason(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_who_gives_what_is_asked_of_the_students_likeliest_tokens() -> None:
    needs = TopK(of="student", k=7).needs
    assert not needs.lacking(Provides(logprobs=True, distribution=True, policy=True))
    assert not needs.lacking(Provides(logprobs=True, student_top_k=7, policy=True))
    server = Provides(logprobs=True, top_k=20, student_top_k=20, policy=True)
    assert "teacher.top_k=21" in TopK(of="student", k=21).needs.lacking(server)
    assert not (needs | TopK(k=3).needs).lacking(server)
    assert str(needs) == "logprobs, student_top_k=7, policy"


def test_what_is_left_to_the_run_is_decided_in_every_term_and_what_was_chosen_stays() -> None:
    kl, chosen, reward = Term(ReverseKL(discount=0.5)), Term(ReverseKL(student="sampled")), Term(GRPO())
    inner = Term(Weighted(terms={"kl": kl}), 0.5, origin="student")
    got = Weighted(terms={"inner": inner, "chosen": chosen, "reward": reward}).judging_now()
    now = Term(ReverseKL(discount=0.5, student="now"))
    assert got.terms == {"inner": Term(Weighted(terms={"kl": now}), 0.5, "student"), "chosen": chosen, "reward": reward}
    assert got.needs.current


def test_the_forward_kl_may_leave_its_tail_out() -> None:
    assert TopK(tail=False, beta=0.0).needs == Needs(top_k=20)


def completions(lengths: list[int], rewards: list[float], groups: list[int]) -> Completions:
    mask = torch.tensor([[t < n for t in range(max(lengths))] for n in lengths])
    zeros = torch.zeros(mask.shape)
    origins = ("student",) * len(lengths)
    return Completions(
        zeros, zeros, zeros, zeros, zeros.long() - 1, mask, torch.tensor(rewards), torch.tensor(groups), origins,
        torch.arange(len(lengths)),
    )  # fmt: skip


def test_group_advantages_by_hand() -> None:
    rewards, groups = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.7]), torch.tensor([0, 0, 1, 0, 2, 2, 2, 3])
    got = group_advantages(rewards, groups, std=False)
    torch.testing.assert_close(got, torch.tensor([2 / 3, -1 / 3, 0.0, -1 / 3, 0.0, 0.0, 0.0, 0.0]))
    scaled = group_advantages(rewards, groups)
    spread = (2 / 9) ** 0.5  # of 1, 0, 0
    torch.testing.assert_close(scaled[:2], torch.tensor([2 / 3, -1 / 3]) / (spread + 1e-6))
    assert (scaled[[2, 4, 5, 6, 7]] == 0).all()


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 3)), min_size=1, max_size=12), st.booleans())
def test_advantages_of_a_group_sum_to_nothing(samples: list[tuple[float, int]], std: bool) -> None:
    rewards, groups = torch.tensor([r for r, _ in samples]), torch.tensor([g for _, g in samples])
    got = group_advantages(rewards, groups, std)
    assert got.isfinite().all()
    for g in range(4):
        assert got[groups == g].sum().abs() < 1e-4
        if len(set(rewards[groups == g].tolist())) == 1:
            assert (got[groups == g] == 0).all()


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"length": "token"}, [1.0, 1.0, 1.0]),
        ({"length": "sequence"}, [5 / (2 * 4), 5 / (2 * 1), 5 / 2]),  # the empty one is no completion to weigh
        ({"length": "constant", "max_tokens": 8}, [5 / (2 * 8)] * 3),
    ],
)
def test_what_a_completion_weighs(settings: dict[str, object], weights: list[float]) -> None:
    c = completions([4, 1, 0], [1.0, 0.0, 0.5], [0, 0, 1])
    objective = GRPO(std=False, **settings)
    torch.testing.assert_close(objective.weights(c), torch.tensor(weights))
    want = torch.tensor([[0.5] * 4, [-0.5, 0, 0, 0], [0.0] * 4]) * torch.tensor(weights)[:, None]
    torch.testing.assert_close(objective.advantages(c), want)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("length", ["token", "sequence", "constant"])
def test_what_a_completion_weighs_does_not_depend_on_how_long_those_of_other_origins_are(
    length: Length, steps: int
) -> None:
    """Of a whole step, N tokens of C completions: 1/N a token, 1/(C T) of one of T tokens, 1/(C max_tokens)."""
    own = [(2, n) for n in (5, 1, 8, 3)]
    rule = Weighted(terms={
        "reward": Term(GRPO(length=length, max_tokens=8, std=False), origin="student"), "data": Term(SFT(), origin="a"),
    })  # fmt: skip
    for other in (1, 40):
        made = rollouts([*own, *[(2, other)] * 4])
        group = [replace(r, prompt=made[0].prompt) for r in made[:4]]
        items = scored([*group, *(replace(r, origin="a", trained=(True,) * other) for r in made[4:])])
        for turn, pack in enumerate(split_steps(items, steps, 0)):
            batch = pack(1000)
            found = rule.advantages(batch.completions)
            assert isinstance(found, Mapping)
            of_reward = found["reward"]
            assert isinstance(of_reward, Mapping)
            got = of_reward["own"][turn:4:steps, 0] / batch.trained
            for value, (_, n), s in zip(got.tolist(), own[turn::steps], items[turn::steps], strict=False):
                assert s.reward is not None
                count = 8 // steps
                weight = {"token": 1 / batch.trained, "sequence": 1 / (count * n), "constant": 1 / (count * 8)}[length]
                assert value == pytest.approx((s.reward - 0.5) * weight, rel=1e-5)


def test_a_sum_within_a_part_of_the_source_needs_its_own_parts_too() -> None:
    inner = Weighted(terms={"kl": Term(ReverseKL(), origin="a")})
    assert Weighted(terms={"outer": Term(inner, origin="b")}).needs.origins == {"a", "b"}


def test_a_policy_gradient_on_tokens_of_others_is_refused() -> None:
    made = completions([2, 3], [0.0, 1.0], [0, 0])
    other = Completions(**{
        **vars(made), "behavior_logprobs": torch.full((2, 3), torch.nan), "origins": ("dataset", "student"),
    })  # fmt: skip
    objective = Weighted(terms={"kl": Term(ReverseKL(), origin="dataset")})
    with pytest.raises(UserError, match=r"objective.terms.kl.origin=dataset: .*student wrote"):
        objective.advantages(other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_left_of_a_distribution(dtype: torch.dtype) -> None:
    log_q = torch.tensor([[3.0, 1.0, 0.0, -2.0]], dtype=dtype).log_softmax(-1)
    torch.testing.assert_close(log_remainder(log_q[:, :2]), log_q[:, 2:].logsumexp(-1, keepdim=True))
    assert log_remainder(log_q).exp() < 1e-6
