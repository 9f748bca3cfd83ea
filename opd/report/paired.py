"""Two evaluations of the same prompts, prompt by prompt: what is hard or long for both cancels in the difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from opd.plain import plain

Sample = Mapping[str, Any]
Z = 1.96
"""97.5% quantile of the normal distribution."""
FEWEST = 20
"""Prompts below which the normal distribution is no guide."""
CLOSE = 1e-4
"""How far, as a share, a figure may be from the one that was reported, to be the same one."""


@dataclass(frozen=True)
class Pair:
    """A figure of two evaluations and its 95% intervals, by the spread between prompts."""

    intervals: tuple[tuple[float, float], tuple[float, float]]
    low: float
    high: float
    """Of the difference, second less first."""


def completions(file: Path) -> list[Sample]:
    """The completions that an evaluation has kept; none where there are none, or others than it writes."""
    try:
        found = [plain(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    return found if all(isinstance(s, dict) and "id" in s and type(s.get("tokens")) is int for s in found) else []


def paired(
    first: Sequence[Sample], second: Sequence[Sample], reported: Mapping[str, tuple[float, float]]
) -> dict[str, Pair]:
    """The figures whose completions say what was `reported` of both; empty where the prompts are not the same."""
    ours, theirs = _by_prompt(first), _by_prompt(second)
    if ours.keys() != theirs.keys() or len(ours) < FEWEST:
        return {}
    found = {}
    for name, parts in FIGURES.items():
        sides = [_ratios([parts(s) for s in side.values()]) for side in (ours, {k: theirs[k] for k in ours})]
        if name not in reported or any(side is None for side in sides):
            continue
        a, b = (side for side in sides if side is not None)
        if all(
            math.isclose(x, y, rel_tol=CLOSE, abs_tol=CLOSE) for x, y in zip((a[0], b[0]), reported[name], strict=True)
        ):
            apart = [y - x for x, y in zip(a[1], b[1], strict=True)]
            found[name] = Pair((_around(*a), _around(*b)), *_around(b[0] - a[0], apart))
    return found


def _by_prompt(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(str(sample["id"]), []).append(sample)
    return found


def _ratios(parts: Sequence[tuple[float, float]]) -> tuple[float, list[float]] | None:
    """A figure that is the sum of the first over the sum of the second, and how much each prompt has a part in it."""
    weight = fmean([w for _, w in parts])
    if not weight > 0 or not all(math.isfinite(v) for v, _ in parts):
        return None
    ratio = fmean([v for v, _ in parts]) / weight
    return ratio, [(v - ratio * w) / weight for v, w in parts]


def _around(value: float, parts: Sequence[float]) -> tuple[float, float]:
    half = Z * stdev(parts) / math.sqrt(len(parts))
    return value - half, value + half


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


FIGURES: Mapping[str, Callable[[Sequence[Sample]], tuple[float, float]]] = {
    "eval/accuracy": lambda s: (sum(_number(x.get("score")) for x in s), len(s)),
    "eval/kl": lambda s: (sum(_number(x.get("kl")) * x["tokens"] for x in s), sum(x["tokens"] for x in s)),
    "eval/length": lambda s: (sum(x["tokens"] for x in s), len(s)),
    "eval/truncated": lambda s: (sum(bool(x.get("truncated")) for x in s), len(s)),
}
"""What the completions of a prompt give to a figure, and how much they weigh in it."""
