"""The tables at the end of a run, as rows of text; the two forms of the console draw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opd.console import figures
from opd.console.base import Metrics

WIDE = 72
"""Columns of terminal below which the eval table leaves the total of tokens out."""


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def accuracy(metrics: Metrics) -> str:
    """Write the accuracy with its interval: `71.0% [66.2, 75.5]`."""
    value, low, high = (metrics.get(f"eval/accuracy{end}") for end in ("", "_low", "_high"))
    if low is None or high is None:
        return figures.share(value)
    return f"{figures.share(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def eval_grid(
    rows: Mapping[str, Metrics], *, title: str, temperature: float, max_tokens: int, width: int = 120
) -> Grid:
    """Lay out eval rows: accuracy with its 95% interval, pass@k where there is one, KL, tokens, length, truncation."""
    every = list(rows.values())
    extra = sorted({name for row in every for name in row if name.startswith(("eval/pass@", "eval/avg@"))})
    columns = [("", list(rows)), ("accuracy (95%)", [accuracy(row) for row in every])]
    columns += [(name.removeprefix("eval/"), [figures.share(row.get(name)) for row in every]) for name in extra]
    for name in ("perplexity", "bits_per_byte"):
        if any(f"eval/{name}" in row for row in every):
            columns.append((name.replace("_", " "), [figures.number(row.get(f"eval/{name}"), 3) for row in every]))
    columns.append(("KL", [figures.number(row.get("eval/kl")) for row in every]))
    if width >= WIDE:
        columns.append(("tokens", [figures.count(row.get("eval/tokens")) for row in every]))
    columns.append(("length", [figures.number(row.get("eval/length"), 1) for row in every]))
    columns.append(("cut", [figures.share(row.get("eval/truncated")) for row in every]))
    head = f"{title} · " if title else ""
    return Grid(
        title=f"{head}temperature {temperature:g} · at most {max_tokens} tokens",
        header=tuple(name for name, _ in columns),
        rows=tuple(zip(*(cells for _, cells in columns), strict=True)),
    )


def time_grid(seconds: Mapping[str, float]) -> Grid:
    """Lay out seconds per phase, with their shares and sum."""
    total = sum(seconds.values())
    rows = [(name, f"{s:.1f}", figures.share(s / total if total else None)) for name, s in seconds.items()]
    rows.append(("total", f"{total:.1f}", ""))
    return Grid(title="time", header=("", "seconds", "share"), rows=tuple(rows))
