"""Two runs against each other: differences that are none are not found, and those that are are placed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from opd.report.contrast import Curve, alike, by_prompt, curve, measured, spread
from opd.report.paired import paired

Row = dict[str, float]


def noisy(steps: int, shape: Callable[[int], float], seed: int, noise: float = 0.1) -> list[Row]:
    draw = random.Random(seed)
    return [{"step": s, "kl/exact": shape(s) + draw.gauss(0, noise)} for s in range(1, steps + 1)]


def compared(first: Sequence[Row], second: Sequence[Row]) -> Curve:
    found = curve(first, second, "kl/exact")
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(20))
def test_curves_that_differ_by_noise_alone_do_not_part(seed: int) -> None:
    found = compared(noisy(200, lambda s: 1 / s, seed), noisy(200, lambda s: 1 / s, seed + 1000))
    assert (found.parted, found.met) == (None, None)


@pytest.mark.parametrize("seed", range(10))
def test_curves_part_where_they_do(seed: int) -> None:
    away = noisy(200, lambda s: 1.0 + max(0, s - 100) * 0.02, seed + 1000)
    found = compared(noisy(200, lambda s: 1.0, seed), away)
    assert found.parted is not None
    assert 85 <= found.parted <= 130
    assert found.difference is not None
    assert found.error is not None
    assert abs(found.difference - 1.81) < 4 * found.error


def test_curves_that_meet_again_have_parted_no_more() -> None:
    found = compared(noisy(200, lambda s: 1.0, 1), noisy(200, lambda s: 2.0 if 50 < s < 100 else 1.0, 2))
    assert found.parted is None
    assert found.met is not None
    assert 95 <= found.met <= 125


def test_of_few_shared_steps_nothing_is_said() -> None:
    found = compared(noisy(19, lambda s: 0.0, 1), noisy(300, lambda s: 9.0, 2))
    assert (found.steps, found.difference, found.parted) == (19, None, None)
    assert curve(noisy(5, lambda s: 0.0, 1), [{"step": 1, "kl/exact": math.nan}], "kl/exact") is None


def test_the_same_curve_does_not_part_from_itself() -> None:
    rows = noisy(50, lambda s: 1.0, 1)
    assert (compared(rows, rows).difference, compared(rows, rows).parted) == (0.0, None)


def test_a_few_leaps_of_a_figure_that_stands_still_are_its_noise() -> None:
    assert spread([0.0] * 30 + [1.0] + [0.0] * 30) > 0
    rows = [{"step": s, "kl/exact": 0.0} for s in range(1, 61)]
    leap = [row | {"kl/exact": float(row["step"] == 59)} for row in rows]
    assert compared(rows, leap).parted is None


def test_runs_are_alike_up_to_the_last_step_with_the_same_figures() -> None:
    first = [{"step": s, "kl/exact": 0.1, "perf/step_s": random.random()} for s in range(5)]
    second = [row | {"perf/step_s": 0.0} for row in first]
    assert alike(first, second) == 4
    second[3]["kl/exact"] = 0.1 + 1e-12
    assert alike(first, second) == 2
    assert alike([], first) is None


def accuracy(value: float, low: float, high: float) -> Row:
    return {"eval/accuracy": value, "eval/accuracy_low": low, "eval/accuracy_high": high}


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """56 of 70 and 48 of 80: (1998), table II, (a): 0.2000, method 10 gives [0.0524, 0.3339]."""
    (found,) = measured("m", accuracy(48 / 80, 0.4904, 0.7004), accuracy(56 / 70, 0.6918, 0.8771))
    assert found.difference == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=5e-4)
    assert found.high == pytest.approx(0.3339, abs=5e-4)
    assert found.beyond


def test_what_has_no_interval_is_not_told_from_noise() -> None:
    (found,) = measured("m", {"eval/kl": 1.0, "eval/seconds": 3.0}, {"eval/kl": 2.0, "eval/seconds": 3.0})
    assert (found.difference, found.beyond) == (1.0, None)
    (found,) = measured("m", accuracy(0.5, 0.4, 0.6), accuracy(0.55, 0.45, 0.65))
    assert found.beyond is False


def test_figures_of_one_task_have_their_own_intervals() -> None:
    row = {"eval/accuracy/sums": 0.5, "eval/accuracy_low/sums": 0.4, "eval/accuracy_high/sums": 0.6}
    (found,) = measured("m", row, row)
    assert found.intervals == ((0.4, 0.6), (0.4, 0.6))


def samples(right: Sequence[int], tokens: Sequence[int], kl: float = 0.1) -> list[dict[str, float | int | str]]:
    return [{"id": str(i), "score": r, "tokens": t, "kl": kl * (i % 3), "truncated": False}
            for i, (r, t) in enumerate(zip(right, tokens, strict=True))]  # fmt: skip


HARD = [int(i % 2 == 0) for i in range(100)]


def test_prompts_in_common_make_a_difference_clearer() -> None:
    """Of 100 prompts the second run solves the same 50 and 8 more."""
    better = [1 if i < 16 else h for i, h in enumerate(HARD)]
    tokens = [10] * 100
    found = paired(samples(HARD, tokens), samples(better, tokens), {"eval/accuracy": (0.5, 0.58)})["eval/accuracy"]
    half = 1.96 * math.sqrt(0.08 * 0.92 / 99)
    assert (found.low, found.high) == pytest.approx((0.08 - half, 0.08 + half))
    assert found.low > 0


def test_a_mean_over_tokens_is_weighed_by_them() -> None:
    tokens = [1 + i % 7 for i in range(100)]
    rows = samples(HARD, tokens)
    kl = sum(0.1 * (i % 3) * t for i, t in enumerate(tokens)) / sum(tokens)
    same = paired(rows, rows, {"eval/kl": (kl, kl)})["eval/kl"]
    assert (same.low, same.high) == (0.0, 0.0)
    assert same.intervals[0][0] < kl < same.intervals[0][1]


def test_what_was_reported_of_other_completions_is_not_taken_from_these() -> None:
    rows = samples(HARD, [10] * 100)
    assert paired(rows, rows, {"eval/accuracy": (0.5, 0.6)}) == {}
    assert paired(rows, rows[1:], {"eval/accuracy": (0.5, 0.5)}) == {}
    assert paired(rows[:10], rows[:10], {"eval/accuracy": (0.5, 0.5)}) == {}
    nothing = [row | {"score": None} for row in rows]
    assert paired(nothing, nothing, {"eval/accuracy": (0.5, 0.5)}) == {}


@pytest.mark.parametrize("text", ["", "nothing", "[1]", '{"id": 1}', '{"id": "0", "tokens": "x"}'])
def test_completions_that_are_none_leave_the_figures_as_they_are(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    side = {"file": tmp_path / "a.json"}
    found = measured("m", {"eval/kl": 1.0}, {"eval/kl": 2.0})
    assert by_prompt(found, side, side) == found == by_prompt(found, {}, {})
