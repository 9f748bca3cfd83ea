"""Packing: every trained token once, at the position that predicts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd.batch import columns, plan_rows, split_steps, to_batch, widest_row
from opd.objectives import GRPO
from tests.tiny import rollouts, scored

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2), (1, 12), (5, 5)]


def test_every_trained_token_sits_where_its_predecessor_is_read() -> None:
    items = scored(rollouts(SHAPES))
    batch = to_batch(items, pad_id=0, micro_tokens=24)
    seen = torch.zeros(len(items), batch.completions.mask.shape[1], dtype=torch.int64)
    for m in batch.micro:
        flat_ids, flat_positions = m.input_ids.flatten(), m.position_ids.flatten()
        for row, token, where in zip(m.rows.tolist(), m.tokens.tolist(), m.where.tolist(), strict=True):
            b, t = divmod(where, batch.completions.mask.shape[1])
            rollout = items[b].rollout
            whole = (*rollout.prompt.tokens, *rollout.tokens)
            at = len(rollout.prompt.tokens) + t
            assert whole[at] == token
            assert flat_ids[row] == whole[at - 1]
            assert flat_positions[row] == at - 1
            seen[b, t] += 1
    assert torch.equal(seen.bool(), batch.completions.mask)
    assert seen.max() == 1


def test_denominator_is_the_number_of_completion_tokens_eos_included() -> None:
    items = scored(rollouts(SHAPES))
    assert to_batch(items, 0, 24).trained == sum(c for _, c in SHAPES)


def test_a_step_of_only_empty_completions_has_nothing_to_train() -> None:
    batch = to_batch(scored(rollouts([(3, 0), (2, 0)])), 0, 16)
    assert batch.trained == 0
    assert batch.micro == ()


def test_signals_follow_their_tokens() -> None:
    items = scored(rollouts(SHAPES), hidden=4)
    batch = to_batch(items, 0, 24)
    for m in batch.micro:
        assert m.signals.teacher_state is not None
        start = 0
        for i in m.sequences:
            n = len(items[i].rollout.tokens)
            assert torch.equal(m.signals.teacher_logprobs[start : start + n], items[i].teacher.logprobs)
            assert torch.equal(m.signals.teacher_state[start : start + n], items[i].teacher.state)
            start += n


@given(st.lists(st.integers(0, 40) | st.integers(400, 1200), max_size=60), st.integers(1, 4000))
def test_rows_hold_every_sequence_once_without_overlap_and_within_the_budget(lengths: list[int], budget: int) -> None:
    plan = plan_rows(lengths, budget)
    placed = [p.index for rows in plan for row in rows for p in row]
    assert sorted(placed) == [i for i, n in enumerate(lengths) if n]
    for rows in plan:
        width = max(lengths[p.index] + p.start for row in rows for p in row)
        longest = max(lengths[p.index] for row in rows for p in row)
        assert width * len(rows) <= budget or len(rows) == 1
        assert width <= min(widest_row(longest), max(longest, budget))
        for row in rows:
            ends = 0
            for p in row:
                assert p.start >= ends
                ends = p.start + lengths[p.index]


def test_rows_that_are_not_shared_hold_one_sequence_each() -> None:
    lengths = [5, 9, 3, 9, 1]
    for rows in plan_rows(lengths, 20, shared=False):
        assert {len(row) for row in rows} == {1}
        assert all(p.start == 0 for row in rows for p in row)


@pytest.mark.parametrize(("prompts", "completions", "budget"), [
    ((12, 22, 64), (8, 38), 4096), ((25, 75, 16), (4, 49), 2048), ((40, 90, 256), (50, 2000), 16384),
])  # fmt: skip
def test_little_of_uneven_rows_is_padding(
    prompts: tuple[int, int, int], completions: tuple[int, int], budget: int
) -> None:
    wasted = []
    for seed in range(5):
        draw = np.random.default_rng(seed)
        shapes = zip(draw.integers(*prompts), draw.integers(*completions, prompts[2]), strict=True)
        lengths = [int(p + c) - 1 for p, c in shapes]
        made = plan_rows(lengths, budget)
        wasted.append(1 - sum(lengths) / sum(len(rows) * columns(rows, lengths) for rows in made))
    assert np.mean(wasted) < 0.05


def test_equal_lengths_pack_without_padding_in_as_few_passes_as_may_be() -> None:
    for count, length, budget in [(8, 8, 32), (24, 127, 1536), (7, 3, 100)]:
        plan = plan_rows([length] * count, budget)
        assert {len(row) for rows in plan for row in rows} == {1}
        assert len(plan) == -(-count // (budget // length))
    assert to_batch(scored(rollouts([(4, 5)] * 8)), 0, 32).padding == 0.0


def test_several_optimizer_steps_share_the_rollouts_of_every_prompt() -> None:
    items = scored(rollouts([(2, 3)] * 8))
    batches = [pack(64) for pack in split_steps(items, 4, 0)]
    assert [sum(len(m.sequences) for m in b.micro) for b in batches] == [2, 2, 2, 2]
    assert [b.trained for b in batches] == [6, 6, 6, 6]
    # Advantages are those of the whole sampling: the samples of one prompt stay together.
    assert all(b.completions.mask.shape == (8, 3) for b in batches)
    assert sum(b.trained for b in batches) == 24


@pytest.mark.parametrize(("length", "each"), [("sequence", 1 / 2), ("constant", None)])
def test_what_a_completion_weighs_is_the_same_whatever_the_others_of_its_optimizer_step_are(
    length: str, each: float | None
) -> None:
    lengths = [2, 6, 2, 6]  # dealt out: the short ones to the first step, the long ones to the second
    made = rollouts([(2, n) for n in lengths])
    items = [
        replace(s, reward=float(i < 2)) for i, s in enumerate(scored([replace(r, prompt=made[0].prompt) for r in made]))
    ]
    objective = GRPO(std=False, length=length, max_tokens=8)
    for batch, n in zip((pack(64) for pack in split_steps(items, 2, 0)), (2, 6), strict=True):
        advantages = objective.advantages(batch.completions).flatten()
        total = sum(advantages[m.where].abs().sum().item() for m in batch.micro) / batch.trained
        # Two completions, whose advantages are 1/2: the mean of each one's mean, or its tokens over the constant.
        assert total == pytest.approx(each or n * (1 / 2) / 8)


def test_samples_of_one_prompt_are_compared_though_several_steps_share_them() -> None:
    made = rollouts([(2, 3)] * 4)
    same = [replace(r, prompt=made[0].prompt) for r in made]
    items = [replace(s, reward=float(i == 0)) for i, s in enumerate(scored(same))]
    for batch in (pack(64) for pack in split_steps(items, 4, 0)):
        assert GRPO().advantages(batch.completions).abs().sum() > 0
