"""Numbers as people read them, and sparklines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

MISSING = "-"
BLOCKS = "▁▂▃▄▅▆▇█"
FEW = 30
"""Answers below which their share says next to nothing: with half of them right it is 33% to 67%."""


def known(value: float | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """Write a quantity of the order of one; very small and very large ones in powers of ten."""
    if value is None or math.isnan(value):
        return MISSING
    if value and not 10.0**-digits <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """Write a number of things: `812`, `1,180`, `12.3k`, `1.2M`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 9_999.5:
        return f"{value:,.0f}"
    return f"{value / 1e3:.1f}k" if value < 999_950 else f"{value / 1e6:.1f}M"


def power(value: float | None) -> str:
    """Write a large number in powers of ten: `1.23e+15`; zero is nothing."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.2e}" if value else ""


def share(value: float | None, digits: int = 1) -> str:
    """Write a share of one in percent."""
    return f"{100 * value:.{digits}f}%" if value is not None and math.isfinite(value) else MISSING


def seconds(value: float | None) -> str:
    """Write a duration: `4.2 s`, `1:23`, `2:03:09`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 59.95:
        return f"{value:.1f} s"
    return clock(value)


def clock(value: float | None) -> str:
    """Write a duration as a clock does, in a width that does not jump: `0:04`, `1:23`, `2:03:09`."""
    if value is None or not math.isfinite(value):
        return MISSING
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: Sequence[float], width: int, high: float | None = None) -> str:
    """Draw a history in at most `width` characters, each the mean of its part, on a scale from 0 to `high`.

    The scale starts at zero, not at the lowest value, so that a fall of a tenth looks like one. Without `high` it ends
    at the largest mean. NaNs leave a gap.
    """
    if not values or width < 1:
        return ""
    cells = min(width, len(values))
    edges = [round(cell * len(values) / cells) for cell in range(cells + 1)]
    parts = [[v for v in values[a:b] if math.isfinite(v)] for a, b in pairwise(edges)]
    means = [sum(part) / len(part) if part else math.nan for part in parts]
    top = high if high is not None else max((m for m in means if math.isfinite(m)), default=0.0)
    return "".join(_block(mean, top) for mean in means)


def _block(value: float, top: float) -> str:
    if math.isnan(value):
        return " "
    level = round(value / top * (len(BLOCKS) - 1)) if top > 0 else 0
    return BLOCKS[min(max(level, 0), len(BLOCKS) - 1)]
