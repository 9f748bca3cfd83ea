"""Curves as numbers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from opd.report.series import Point, axes, metric_names, series, thinned


@given(st.integers(0, 2000), st.integers(2, 50))
def test_thinning_keeps_both_ends_and_at_most_so_many(count: int, most: int) -> None:
    points = [Point(i, float(i)) for i in range(count)]
    kept = thinned(points, most)
    assert len(kept) <= most + 1
    assert kept[:1] + kept[-1:] == points[:1] + points[-1:]
    assert count > most or kept == points


def test_a_curve_leaves_out_what_is_no_number_and_has_its_intervals() -> None:
    rows = [{"step": 0, "a": 1.0, "a_low": 0.5, "a_high": 2.0}, {"step": 1, "a": math.nan}, {"step": 2}, {"a": 3.0}]
    assert series(rows, "a") == [Point(0, 1.0, 0.5, 2.0), Point(3, 3.0)]


def test_an_axis_is_offered_where_it_grows_in_some_run() -> None:
    one = [{"step": 0.0, "cost/flops": math.nan, "cost/total_s": 1.0}, {"step": 1.0, "cost/total_s": 2.0}]
    two = [{"step": 0.0, "cost/generate_tokens": 0.0}, {"step": 1.0, "cost/generate_tokens": 0.0}]
    assert axes([one, two]) == ["step", "cost/total_s"]


def test_intervals_and_costs_are_no_curves_of_their_own() -> None:
    row = dict.fromkeys(
        ["step", "eval/accuracy", "eval/accuracy_low", "eval/accuracy_high", "optim/lr", "kl/exact", "kl/coverage",
         "perf/step_s", "cost/flops"], 1.0,
    )  # fmt: skip
    assert metric_names([[row]]) == {
        "Learning": ["kl/exact", "eval/accuracy"], "Optimizer": ["optim/lr"], "Further figures": ["kl/coverage"],
    }  # fmt: skip
