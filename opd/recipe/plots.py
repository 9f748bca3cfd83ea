"""Plots that also those can read who do not see all colours: each line has a colour, a dash and a mark of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, 2008."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))
MARKS = ("o", "s", "^", "D", "v", "P", "X")

Points = Mapping[str, Sequence[float]]
"""A `Curve.plain()`."""


def figure(columns: int = 1, *, width: float = 4.6, height: float = 3.4, title: str = "") -> tuple[Any, list[Any]]:
    """A figure with axes side by side."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width * columns, height), layout="constrained")
    axes = drawn.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    if title:
        drawn.suptitle(title, fontsize=10)
    return drawn, list(axes)


def style(number: int) -> dict[str, Any]:
    """Colour, dash and mark of the line with this number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKS[number % len(MARKS)],
        "markersize": 3.5,
        "linewidth": 1.5,
    }


def curves_over(ax: Any, methods: Mapping[str, Sequence[Points]], x: str, y: str = "accuracy") -> None:
    """The mean over seeds of each method, and their range as a band.

    The seeds of a method are evaluated at the same steps, so that the means are taken step by step, of `x` too.
    """
    for number, (name, seeds) in enumerate(methods.items()):
        xs = [sum(values) / len(values) for values in zip(*(s[x] for s in seeds), strict=True)]
        columns = list(zip(*(s[y] for s in seeds), strict=True))
        ax.plot(xs, [sum(c) / len(c) for c in columns], label=name, **style(number))
        if len(seeds) > 1:
            low, high = [min(c) for c in columns], [max(c) for c in columns]
            ax.fill_between(xs, low, high, color=style(number)["color"], alpha=0.15, linewidth=0)


def mark_axes(ax: Any, x: str, y: str, *, log_x: bool = False) -> None:
    """Name both axes, and say which line is which."""
    if log_x:
        ax.set_xscale("log")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend(frameon=False, fontsize=8)


def save(drawn: Any, stem: Path) -> None:
    """Write PNG and SVG; the same figure gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": stem.name}):
        drawn.savefig(stem.with_suffix(".png"), dpi=150, metadata={"Software": None})
        drawn.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
