"""How a figure of a run went: what it began with, where it was lowest, where it is, and how much of that is noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

Row = Mapping[str, float]
"""Figures of a step by their names."""
FEWEST = 20
"""Steps below which nothing is said: a fifth of them is no mean yet."""


@dataclass(frozen=True)
class Course:
    """How a figure went: means over a fifth of the run, at its beginning, where it was lowest, and at its end."""

    start: float
    """Of its first step."""
    first: float
    lowest: float
    at: int
    """The step in the middle of the lowest."""
    last: float
    spread: float
    """Standard deviation of a step about its trend."""
    error: float
    """Standard error of the difference of two such means."""
    steps: int
    """How many there are."""


def course(rows: Sequence[Row], name: str) -> Course | None:
    """The course of a figure; None where too few steps have it."""
    points = [(row["step"], row[name]) for row in rows if row["step"] >= 1 and math.isfinite(row.get(name, math.nan))]
    if len(points) < FEWEST:
        return None
    values = [value for _, value in points]
    width = len(values) // 5
    means = [fmean(values[i : i + width]) for i in range(len(values) - width + 1)]
    lowest = min(range(len(means)), key=means.__getitem__)
    # The changes from one step to the next are noise of twice the variance, whatever the trend; a few leaps are not.
    spread = 1.4826 * median([abs(b - a) for a, b in itertools.pairwise(values)]) / math.sqrt(2)
    at, error = int(points[lowest + width // 2][0]), spread * math.sqrt(2 / width)
    return Course(values[0], means[0], means[lowest], at, means[-1], spread, error, len(values))
