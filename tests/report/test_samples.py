"""Which completions a page shows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd.report.samples import TOKENS, choose_samples, choose_steps, evenly, fit, make_cells, worst_tokens
from opd.types import UserError
from tests.report.made import transcript


@given(st.lists(st.integers(0, 500), unique=True).map(sorted), st.integers(2, 9))
def test_steps_are_spread_and_both_ends_are_there(steps: list[int], most: int) -> None:
    chosen = evenly(steps, most)
    assert len(chosen) == min(most, len(steps))
    assert chosen[:1] + chosen[-1:] == steps[:1] + steps[-1:]
    assert sorted(set(chosen)) == chosen


def test_steps_that_all_runs_have_come_first() -> None:
    assert choose_steps([[1, 5, 10], [1, 10, 20]]) == [1, 10]
    assert choose_steps([[1], [2]]) == [1, 2]
    assert choose_steps([[1, 2, 3]], [3, 1, 3]) == [1, 3]
    assert choose_steps([[], []]) == []


@pytest.mark.parametrize(("recorded", "says"), [([1, 10], "there are 1, 10"), ([], "rollouts_every")])
def test_a_step_that_was_not_recorded_is_refused_with_those_there_are(recorded: list[int], says: str) -> None:
    with pytest.raises(UserError, match=f"--step 7.*{says}"):
        choose_steps([recorded], [7])


def test_shown_are_first_ones_of_different_prompts_and_the_worst_of_all() -> None:
    items = [transcript(f"p{i // 2}", [0.0, i / 100, math.nan]) for i in range(40)]
    assert choose_samples(items) == [0, 2, 4, 6, 39, 38, 37, 36]
    assert choose_samples(items[:2]) == [0, 1]


def test_a_page_has_room_for_so_many_tokens_whatever_the_runs() -> None:
    long = [transcript(str(i), [0.5] * 3000) for i in range(9)]
    cells = make_cells([[1, 2], [2]], [1, 2], lambda run, step: long)
    shown = [sum(len(s.tokens) for s in c.samples) for c in cells]
    assert shown == [6000, 0, 6000, 6000]
    assert sum(shown) <= TOKENS
    assert [c.left_out for c in cells] == [7, 0, 7, 7]
    assert [c.written for c in cells] == [9, 0, 9, 9]


def test_a_completion_that_has_no_room_loses_its_end() -> None:
    cell = fit(0, 1, [transcript("a", [0.5] * 100), transcript("b", [0.1] * 5)], room=60)
    assert [len(s.tokens) for s in cell.samples] == [60]
    assert (cell.cut, cell.left_out) == (40, 1)


def test_worst_tokens_are_sorted_and_only_what_the_teacher_minds() -> None:
    cell = fit(1, 5, [transcript("a", [0.3, -9.0, math.nan, 7.0]), transcript("b", [2.0, 0.05])], room=99)
    found = worst_tokens([cell])
    assert [w.token.disagreement for w in found] == pytest.approx([7.0, 2.0, 0.3])
    assert found[0].anchor == "r1-s5-c0-t3"
    assert (found[0].before, found[1].before) == ("xxx", "")
