"""A run's evaluations over its course, by steps, tokens, operations and seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from opd.run.directory import RunFolder
from opd.run.metrics import read_metrics

TRAINING = ("generate", "score", "verify", "update", "push")
"""Phases whose seconds are training; loading, evaluations and checkpoints are not."""


@dataclass(frozen=True)
class Curve:
    """Values at every evaluation, all of one length; NaN where a run has no such figure."""

    steps: tuple[float, ...]
    tokens: tuple[float, ...]
    """Sampled, by whichever model, so far."""
    flops: tuple[float, ...]
    """Of student and teacher, there and back, so far."""
    seconds: tuple[float, ...]
    """Of training so far, without loading and evaluations."""
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    """95% interval of the accuracy, over prompts."""
    kl: tuple[float, ...]
    """Reverse KL of the student to the teacher, in nats/token."""

    @property
    def best(self) -> float:
        """The highest accuracy of all evaluations."""
        return max(self.accuracy)

    def plain(self) -> dict[str, list[float]]:
        """The same as JSON has it."""
        return {f.name: list(getattr(self, f.name)) for f in fields(self)}


def read_curve(run: RunFolder) -> Curve:
    """Read the evaluations of a run from its `metrics.jsonl`."""
    rows = [row for row in read_metrics(run.metrics) if any(name.startswith("eval/") for name in row)]

    def column(name: str) -> tuple[float, ...]:
        return tuple(row.get(name, math.nan) for row in rows)

    return Curve(
        steps=column("step"),
        tokens=tuple(row.get("cost/generate_tokens", 0.0) for row in rows),
        flops=tuple(row.get("cost/flops", 0.0) for row in rows),
        seconds=tuple(math.fsum(row.get(f"cost/{phase}_s", 0.0) for phase in TRAINING) for row in rows),
        accuracy=column("eval/accuracy"),
        low=column("eval/accuracy_low"),
        high=column("eval/accuracy_high"),
        kl=column("eval/kl"),
    )


def reaches(x: Sequence[float], y: Sequence[float], level: float) -> float:
    """Where a curve first comes to `level`, between two points on the straight line; infinite if it never does."""
    for i, value in enumerate(y):
        if value >= level:
            if i == 0:
                return x[0]
            share = (level - y[i - 1]) / (value - y[i - 1])
            return x[i - 1] + share * (x[i] - x[i - 1])
    return math.inf


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)


def span(values: Sequence[float], digits: int = 1) -> str:
    """Mean and range, as text: `54.0 [52.1, 55.3]`; one value alone has no range."""
    ends = f" [{min(values):.{digits}f}, {max(values):.{digits}f}]" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{ends}"
