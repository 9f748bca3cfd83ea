"""The curves of a page: one chart a metric, drawn over every axis, with its numbers as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opd.console.tables import Grid
from opd.report.chart import Mark, drawing, frame
from opd.report.record import Record
from opd.report.series import AXES, Point, axes, metric_names, series
from opd.report.tables import measured_otherwise, points_grid, value

UNITS = {
    "kl/exact": "reverse KL over the whole vocabulary, nats a token",
    "kl/sampled": "reverse KL on the sampled tokens, nats a token",
    "eval/kl": "reverse KL on held-out prompts, nats a token",
    "eval/accuracy": "held-out prompts, with 95% intervals",
    "rollout/length": "tokens a completion",
    "rollout/truncated": "share of completions cut at the longest length",
    "rollout/horizon": "tokens of a completion that are written at most",
    "rollout/cut": "share of completions that end at the horizon of their step",
    "rollout/looped": "share of completions that repeated themselves and were ended",
    "rollout/reward": "mean of the verifier's scores",
}


@dataclass(frozen=True)
class Drawing:
    """One run over one axis."""

    run: int
    axis: str
    """Short name."""
    svg: str


@dataclass(frozen=True)
class Chart:
    """One metric of all runs."""

    metric: str
    about: str
    warning: str
    """Why it is not to be compared; empty where it is."""
    words: str
    """What the picture shows, in words."""
    latest: tuple[tuple[int, str, str], ...]
    """Number, name and newest value of each run that has one."""
    drawings: tuple[Drawing, ...]
    numbers: Grid
    points: tuple[tuple[tuple[int, float], ...], ...]
    """Of each run: line of its metrics, and value."""


@dataclass(frozen=True)
class Section:
    """Charts under a heading."""

    title: str
    charts: tuple[Chart, ...]


def make_sections(records: Sequence[Record]) -> list[Section]:
    """Every curve of the runs."""
    runs = [r.rows for r in records]
    over = axes(runs)
    return [
        Section(title, tuple(make_chart(name, records, over) for name in names))
        for title, names in metric_names(runs).items()
    ]


def make_chart(metric: str, records: Sequence[Record], over: Sequence[str]) -> Chart:
    """One metric over all axes; a run is left out over an axis that it has no numbers for."""
    lines = [series(r.rows, metric) for r in records]
    drawings = []
    for axis in over:
        marks = [_marks(r, line, axis) for r, line in zip(records, lines, strict=True)]
        shared = frame(marks, AXES[axis][1])
        drawings += [Drawing(i, AXES[axis][0], drawing(shared, m, i)) for i, m in enumerate(marks) if m]
    latest = tuple(
        (i, r.name, value(metric, p[-1].value)) for i, (r, p) in enumerate(zip(records, lines, strict=True)) if p
    )
    return Chart(
        metric, UNITS.get(metric, ""), measured_otherwise(metric, records), _words(metric, records, lines), latest,
        tuple(drawings), points_grid(metric, records, lines),
        tuple(tuple((p.row, float(f"{p.value:.6g}")) for p in line) for line in lines),
    )  # fmt: skip


def _marks(record: Record, line: Sequence[Point], axis: str) -> list[Mark]:
    at = [(record.rows[p.row].get(axis, math.nan), p) for p in line]
    return [Mark(x, p.value, p.low, p.high) for x, p in at if math.isfinite(x)]


def _words(metric: str, records: Sequence[Record], lines: Sequence[Sequence[Point]]) -> str:
    said = []
    for r, line in zip(records, lines, strict=True):
        if not line:
            continue
        ends = [f"{value(metric, p.value)} at step {r.rows[p.row]['step']:g}" for p in (line[0], line[-1])]
        values = [p.value for p in line]
        least, most = value(metric, min(values)), value(metric, max(values))
        said.append(f"{r.name}: from {ends[0]} to {ends[1]}, lowest {least}, highest {most}")
    return f"{metric}. " + "; ".join(said)


def readout(records: Sequence[Record], sections: Sequence[Section]) -> dict[str, Any]:
    """What the page's script needs to tell a curve's numbers: each run's axes, and points that lead into them."""
    over = {AXES[name][0]: name for name in axes([r.rows for r in records])}
    columns = [{short: [_plain(row.get(name)) for row in r.rows] for short, name in over.items()} for r in records]
    charts = {c.metric: c.points for s in sections for c in s.charts}
    names = {AXES[name][0]: AXES[name][1] for name in over.values()}
    return {"runs": [r.name for r in records], "axes": columns, "names": names, "charts": charts}


def _plain(number: float | None) -> float | None:
    return float(f"{number:.6g}") if number is not None and math.isfinite(number) else None
