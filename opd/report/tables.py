"""The tables of a page, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from opd.console import figures
from opd.console.tables import Grid, accuracy, cost_grid, eval_grid
from opd.report.record import Record
from opd.report.series import AXES, Point
from opd.run.results import Setting, unequal

SUMMARY = {
    "kl/exact": "reverse KL, nats/token",
    "kl/sampled": "reverse KL, sampled",
    "eval/kl": "reverse KL, held-out",
    "eval/accuracy": "accuracy, held-out (95%)",
    "rollout/reward": "reward",
    "rollout/length": "tokens a completion",
    "rollout/truncated": "truncated",
}
"""Figures that are shown as they were first and last."""
SHARES = ("eval/accuracy", "rollout/truncated", "eval/truncated")


def summary_grid(records: Sequence[Record]) -> Grid:
    """A column a run: figures from the first to the last line that has them, and what the run has cost."""
    rows = [("steps", *(f"{r.last['step']:g} of {r.settings.get('steps', '?')}" for r in records))]
    for metric, name in SUMMARY.items():
        if any(metric in row for r in records for row in r.rows):
            mark = " (not comparable)" if measured_otherwise(metric, records) else ""
            rows.append((name + mark, *(_change(r, metric) for r in records)))
    for column, (_, name) in list(AXES.items())[1:]:
        rows.append((name, *(_total(r, column) for r in records)))
    return Grid("", ("", *(r.name for r in records)), tuple(rows))


def _change(record: Record, metric: str) -> str:
    """`0.61 → 0.08`; of the accuracy the interval too."""
    there = [row for row in record.rows if metric in row]
    ends = [*there[:1], *there[1:][-1:]]
    return " → ".join(accuracy(row) if metric == "eval/accuracy" else value(metric, row[metric]) for row in ends) or "-"


def _total(record: Record, column: str) -> str:
    total = record.last.get(column)
    if column.endswith("_s"):
        return figures.seconds(total)
    return figures.power(total) or "0" if column.endswith("flops") else figures.count(total)


def value(metric: str, number: float) -> str:
    """A figure as text: shares in percent, very small and large ones in powers of ten."""
    if metric in SHARES and 0 <= number <= 1:
        return figures.share(number)
    return f"{number:.4g}"


def evaluation_grids(records: Sequence[Record]) -> list[Grid]:
    """The evaluated models of all runs in one table, or in several that say why they are not to be compared."""
    several = len(records) > 1
    alike: dict[Setting, dict[str, Mapping[str, float]]] = {}
    for r in records:
        for name, found in r.evaluations.items():
            same = alike.setdefault(Setting.of(found), {})
            same[f"{r.name}: {name}" if several else name] = found["metrics"]
    other = unequal(list(alike))
    warning = f" · not comparable with the others: other {', '.join(other)}" if other else ""
    grids = [
        eval_grid(rows, title=s.words, temperature=s.temperature, max_tokens=s.max_tokens) for s, rows in alike.items()
    ]
    return [replace(grid, title=grid.title + warning) for grid in grids]


def measured_otherwise(metric: str, records: Sequence[Record]) -> str:
    """Why the points of a curve, or the curves of several runs, are not to be compared; empty where they are."""
    if not metric.startswith("eval/"):
        return ""
    other = unequal([setting for r in records for setting in r.measured])
    return f"not comparable: measured with other {', '.join(other)}" if other else ""


def cost_grids(records: Sequence[Record]) -> list[tuple[str, Grid | None]]:
    """Each run's ledger; None for one that did not count."""
    return [(r.name, cost_grid(r.last) if "cost/total_s" in r.last else None) for r in records]


def points_grid(metric: str, records: Sequence[Record], lines: Sequence[Sequence[Point]]) -> Grid:
    """The numbers of a curve: a line a step, a column a run."""
    columns: list[Mapping[float, Point]] = [
        {r.rows[p.row]["step"]: p for p in line} for r, line in zip(records, lines, strict=True)
    ]
    steps = sorted({step for column in columns for step in column})
    rows = [(f"{step:g}", *(_point(metric, column.get(step)) for column in columns)) for step in steps]
    return Grid("", ("step", *(r.name for r in records)), tuple(rows))


def _point(metric: str, point: Point | None) -> str:
    if point is None:
        return ""
    if point.low is None or point.high is None:
        return value(metric, point.value)
    return f"{value(metric, point.value)} [{value(metric, point.low)}, {value(metric, point.high)}]"
