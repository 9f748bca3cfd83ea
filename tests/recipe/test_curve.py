"""What a recipe reads from a run's `metrics.jsonl`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from opd.recipe import mean, reaches, read_curve, span
from opd.run.directory import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    rows = [
        {"step": 0, "eval/accuracy": 0.25, "eval/accuracy_low": 0.2, "eval/accuracy_high": 0.3, "perf/setup_s": 9.0},
        {"step": 1, "rollout/reward": 0.4},
        {"step": 2, "eval/accuracy": 0.75, "eval/accuracy_low": 0.7, "eval/accuracy_high": 0.8, "eval/kl": 0.5,
         "cost/generate_tokens": 60, "cost/flops": 1e6, "cost/generate_s": 1.0, "cost/update_s": 2.0,
         "cost/eval_s": 40.0, "cost/checkpoint_s": 5.0},
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunFolder(tmp_path)


def test_a_curve_has_a_point_per_evaluation(run: RunFolder) -> None:
    curve = read_curve(run)
    assert curve.steps == (0, 2)
    assert curve.accuracy == (0.25, 0.75)
    assert (curve.low, curve.high) == ((0.2, 0.7), (0.3, 0.8))
    assert curve.best == 0.75


def test_costs_begin_at_nothing_and_leave_out_what_is_no_training(run: RunFolder) -> None:
    curve = read_curve(run)
    assert curve.tokens == (0, 60)
    assert curve.flops == (0, 1e6)
    assert curve.seconds == (0, 3.0)  # of 48, the rest were an evaluation and a checkpoint


def test_a_figure_that_a_run_does_not_have_is_nan(run: RunFolder) -> None:
    before, after = read_curve(run).kl
    assert math.isnan(before)
    assert after == 0.5
    assert set(read_curve(run).plain()) >= {"steps", "accuracy", "kl"}


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.1, 0.0), (0.2, 0.0), (0.4, 5.0), (0.6, 10.0), (0.8, 40.0), (0.9, math.inf)],
)
def test_a_level_is_reached_where_the_straight_line_first_crosses_it(level: float, expected: float) -> None:
    assert reaches([0, 10, 20, 40], [0.2, 0.6, 0.4, 0.8], level) == pytest.approx(expected)


def test_a_mean_with_its_range_reads_as_text() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert span([1.0, 2.0, 6.0]) == "3.0 [1.0, 6.0]"
    assert span([0.5], 3) == "0.500"
