"""Curves as numbers: a metric's points over steps, tokens, FLOPs or seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, float]

AXES = {
    "step": ("step", "steps"),
    "cost/generate_tokens": ("sampled", "tokens sampled"),
    "cost/update_tokens": ("trained", "tokens trained"),
    "cost/flops": ("flops", "FLOPs, student and teacher"),
    "cost/total_s": ("seconds", "seconds, set-up included"),
}
"""Columns that grow over a run -> the short and the full name of the axis that they make."""
FIRST = (
    "kl/exact", "kl/sampled", "eval/kl", "eval/accuracy", "eval/perplexity",
    "rollout/length", "rollout/truncated", "rollout/reward",
)  # fmt: skip
"""What people look at first, in this order."""
INTERVAL = ("_low", "_high")
POINTS = 300
"""Points of a curve that are drawn and written out at most."""


@dataclass(frozen=True)
class Point:
    """A value, and the line of the run's metrics that it is from."""

    row: int
    value: float
    low: float | None = None
    high: float | None = None
    """Ends of a 95% interval, where there is one."""


def series(rows: Sequence[Row], metric: str) -> list[Point]:
    """The metric's points, without those that are no number, thinned to `POINTS`."""
    low, high = (metric + end for end in INTERVAL)
    found = [
        Point(i, row[metric], _finite(row, low), _finite(row, high))
        for i, row in enumerate(rows)
        if _finite(row, metric) is not None
    ]
    return thinned(found)


def _finite(row: Row, name: str) -> float | None:
    value = row.get(name, math.nan)
    return value if math.isfinite(value) else None


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """Every n-th point and the last one, so that at most `most` are left; as measured, nothing is averaged."""
    every = math.ceil(max(1, len(points) - 1) / max(1, most - 1))
    return [p for i, p in enumerate(points) if i % every == 0 or i == len(points) - 1]


def axes(runs: Sequence[Sequence[Row]]) -> list[str]:
    """The axes that curves can be drawn over: columns that grow in at least one run, steps always."""
    return [name for name in AXES if name == "step" or any(_grows(rows, name) for rows in runs)]


def _grows(rows: Sequence[Row], name: str) -> bool:
    values = [v for v in (row.get(name, math.nan) for row in rows) if math.isfinite(v)]
    return len(values) > 1 and values[-1] > values[0]


def metric_names(runs: Sequence[Sequence[Row]]) -> dict[str, list[str]]:
    """Names of the curves by section; seconds and costs have tables of their own, ends of intervals go with theirs."""
    every = dict.fromkeys(name for rows in runs for row in rows for name in row)
    ends = {name + end for name in every for end in INTERVAL}
    names = [n for n in every if n != "step" and not n.startswith(("perf/", "cost/")) and n not in ends]
    optim = sorted(n for n in names if n.startswith("optim/"))
    rest = sorted(n for n in names if n not in FIRST and n not in optim)
    found = {"Learning": [n for n in FIRST if n in names], "Optimizer": optim, "Further figures": rest}
    return {title: chosen for title, chosen in found.items() if chosen}
