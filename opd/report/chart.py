"""Line charts as SVG text: pure functions from numbers. A page lays several of one frame over or beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 36
FEW = 40
"""Points up to which each is marked."""
NOISE = 15.0
"""Standard deviations of a curve's noise that an axis spans at least: noise alone, of 4 to 6, fills less than half."""
LEVEL = 0.25
"""Share of the largest value that it spans at least: what moves by a twentieth of its level is seen to do so."""


@dataclass(frozen=True)
class Mark:
    """A point to draw."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scale:
    """From numbers to places on the page."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a number lies, to a tenth of a pixel."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class Frame:
    """The scales that all lines of a chart share, and what is written at the axis below."""

    x: Scale
    y: Scale
    x_label: str


def frame(lines: Sequence[Sequence[Mark]], x_label: str) -> Frame:
    """Scales that show all lines whole."""
    xs = [m.x for line in lines for m in line]
    return Frame(Scale(*span(xs), LEFT, WIDTH - RIGHT), Scale(*heights(lines), HEIGHT - BOTTOM, TOP), x_label)


def heights(lines: Sequence[Sequence[Mark]]) -> tuple[float, float]:
    """Lowest and highest of an axis, so that a large change looks large and noise does not.

    It shows all values and intervals; begins at zero where the values come near it, so that a fall looks like one; and
    spans at least `NOISE` deviations of the noisiest line and `LEVEL` of the largest value, with the values in its
    middle, but crosses neither zero nor one where they do not.
    """
    marks = [m for line in lines for m in line]
    ys = [v for m in marks for v in (m.y, m.low, m.high) if v is not None and math.isfinite(v)]
    if not any(ys):
        return 0.0, 1.0
    least, most = min(ys), max(ys)
    low = 0.0 if 0 < least < 0.5 * most else least
    size = max(most - low, NOISE * max(map(noise, lines), default=0.0), LEVEL * max(map(abs, ys)), 1e-290)
    low -= (size - (most - low)) / 2
    for edge in (0.0, 1.0):
        if low + size > edge >= most:
            low = edge - size
        if low < edge <= least:
            low = edge
    return low, low + size


def noise(line: Sequence[Mark]) -> float:
    """Standard deviation of a point about the course of its line: by its intervals, else by how the line bends.

    Second differences of independent noise have six times its variance, those of a smooth course are near zero. Too
    few points say nothing: 0.
    """
    halves = [(m.high - m.low) / 2 for m in line if m.low is not None and m.high is not None]
    if halves:
        return max(0.0, fmean(halves)) / 1.96
    ys = [m.y for m in line]
    bends = [abs(a - 2 * b + c) for a, b, c in zip(ys, ys[1:], ys[2:], strict=False)]
    return fmean(bends) * math.sqrt(math.pi / 12) if len(bends) >= 6 else 0.0


def span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest; values that are the same, as far as the labels of an axis tell, are put into its middle."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    size = max(abs(low), abs(high))
    if high - low > 2e-5 * size > 1e-300:
        return low, high
    return (low - size / 2, high + size / 2) if size > 1e-290 else (0.0, 1.0)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two others: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number as an axis shows it: `0.25`, `1,200`, `50k`, `2M`, `3e11`."""
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        digits, power = f"{value:.5e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    if size >= 1e4:
        return f"{value / 1e6:g}M" if size >= 1e6 else f"{value / 1e3:g}k"
    return f"{value:,.6g}"


def drawing(f: Frame, line: Sequence[Mark], number: int) -> str:
    """One run's line on a frame. Colours come from the classes `runN`; the frame's own parts have the class `frame`."""
    marks = [(f.x(m.x), f.y(m.y), m) for m in line]
    parts = [_frame(f), _intervals(f, marks)]
    if len(marks) > 1:
        parts.append(f'<polyline class="line" points="{" ".join(f"{x:g},{y:g}" for x, y, _ in marks)}"/>')
    if len(marks) <= FEW:
        parts += [f'<circle class="dot" cx="{x:g}" cy="{y:g}" r="2.5"/>' for x, y, _ in marks]
    return (
        f'<svg class="run{number}" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true" '
        f'data-x="{f.x.low:.9g} {f.x.high:.9g}" data-y="{f.y.low:.9g} {f.y.high:.9g}">{"".join(parts)}</svg>'
    )


def _frame(f: Frame) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>']
    for value in ticks(f.y.low, f.y.high):
        y = f.y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:g}H{right}"/>')
        parts.append(f'<text class="y" x="{LEFT - 5}" y="{y + 3.5:g}">{short(value)}</text>')
    for value in ticks(f.x.low, f.x.high, 4):
        x = f.x(value)
        parts.append(f'<path class="axis" d="M{x:g} {bottom}v4"/>')
        parts.append(f'<text class="x" x="{x:g}" y="{bottom + 15}">{short(value)}</text>')
    parts.append(f'<text class="x" x="{(LEFT + right) / 2:g}" y="{HEIGHT - 5}">{f.x_label}</text>')
    return f'<g class="frame">{"".join(parts)}</g>'


def _intervals(f: Frame, marks: Sequence[tuple[float, float, Mark]]) -> str:
    """A band along the line, and a bar at each point."""
    known = [(x, f.y(m.low), f.y(m.high)) for x, _, m in marks if m.low is not None and m.high is not None]
    bands = [f"M{a:g} {p:g}L{b:g} {r:g}L{b:g} {s:g}L{a:g} {q:g}Z" for (a, p, q), (b, r, s) in pairwise(known)]
    bars = [f"M{x:g} {low:g}V{high:g}M{x - 3:g} {low:g}h6M{x - 3:g} {high:g}h6" for x, low, high in known]
    band = f'<path class="band" d="{"".join(bands)}"/>' if bands else ""
    return band + (f'<path class="bar" d="{"".join(bars)}"/>' if bars and len(bars) <= FEW else "")
