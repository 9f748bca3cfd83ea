"""The summary of a run: what changed beyond its noise is said to have changed, and nothing else."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from opd.report.summary import told
from tests.report.made import record


def rows(kl: Callable[[float], float], steps: int = 60, name: str = "kl/exact") -> list[dict[str, float]]:
    draw = random.Random(0)
    return [{"step": s, name: kl(s / steps) * (1 + 0.05 * draw.gauss(0, 1))} for s in range(1, steps + 1)]


def accuracy(step: int, value: float) -> dict[str, float]:
    return {"step": step, "eval/accuracy": value, "eval/accuracy_low": value - 0.05, "eval/accuracy_high": value + 0.05}


@pytest.mark.parametrize(
    ("course", "said"),
    [
        (lambda t: 0.02 + 0.6 * math.exp(-5 * t), "Reverse KL fell from 0."),
        (lambda t: 0.6 + 0.4 * t, "Reverse KL rose from 0."),
        (lambda t: 0.6, "Reverse KL stayed where it was, at 0.6"),
    ],
)
def test_a_divergence_is_said_to_move_where_it_does_so_beyond_its_noise(
    course: Callable[[float], float], said: str, tmp_path: Path
) -> None:
    assert said in told(record(tmp_path / "run", rows(course)))


def test_of_few_steps_no_trend_is_told(tmp_path: Path) -> None:
    said = told(record(tmp_path / "run", rows(lambda t: 1 - t / 2, steps=8)))
    assert "Reverse KL was last 0.4" in said
    assert "so few steps show no trend" in said


@pytest.mark.parametrize(
    ("last", "said"), [(0.9, "rose from 40.0% [35.0, 45.0] to 90.0%"), (0.1, "fell from 40"), (0.45, "did not change")]
)
def test_an_accuracy_is_said_to_move_where_its_intervals_part(last: float, said: str, tmp_path: Path) -> None:
    assert f"Accuracy on held-out prompts {said}" in told(
        record(tmp_path / "run", [accuracy(0, 0.4), accuracy(9, last)])
    )


def test_a_summary_says_how_far_a_run_came_by_what_and_at_what_cost(tmp_path: Path) -> None:
    settings = "steps: 9\nobjective: {_target_: a.b.ReverseKL}\nsource: {_target_: c.StudentSource}\n"
    made = [accuracy(0, 0.4) | {"cost/total_s": 83.0, "cost/update_tokens": 12345.0}]
    assert told(record(tmp_path / "run", made, settings=settings)) == (
        "0 of 9 steps of ReverseKL on what StudentSource gives: 1:23, 12.3k tokens trained. "
        "Accuracy on held-out prompts is 40.0% [35.0, 45.0] at step 0."
    )
    reward = told(record(tmp_path / "rewarded", rows(lambda t: 0.2 + 0.5 * t, name="rollout/reward")))
    assert "The reward went from 0.2" in reward
