"""Figures of evaluations that a run goes by: when it is over, and which of its checkpoints is the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

LESS = ("kl", "kl_per_byte", "text_kl", "text_kl_forward", "perplexity", "bits_per_byte")
"""Figures of which less is better; of shares and scores more is."""
NEITHER = ("count", "tokens", "length", "truncated", "coverage", "seconds")
"""Figures that say what was measured, and not how well."""


@dataclass(frozen=True)
class StopConfig:
    """When a run is over before its last step; looked at after each evaluation of `eval.every`."""

    metric: str | None = None
    """A figure of evaluations, such as eval/kl or eval/accuracy; null: a run takes all its steps."""
    target: float | None = None
    """Stops where the figure is this or better; not before the first step."""
    patience: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Stops where so many evaluations in a row have not bettered the best one before them."""
    change: Annotated[float, Field(ge=0)] = 0.0
    """By more than this a figure has to be better to count as better, for `patience`."""

    def __post_init__(self) -> None:
        """Refuse what would never stop a run, and what has nothing to go by."""
        rules = {"target": self.target, "patience": self.patience}
        given = {name: value for name, value in rules.items() if value is not None}
        if self.metric is None and given:
            name, value = next(iter(given.items()))
            raise ValueError(f"{name}={value:g}: also say of which figure, such as stop.metric=eval/kl")
        if self.metric is not None and not given:
            raise ValueError(f"metric={self.metric}: also say when, by stop.target=0.01 or stop.patience=3")
        if self.change and self.patience is None:
            raise ValueError(f"change={self.change:g}: it is what stop.patience goes by; also give that")


def refuse_unmeasured(setting: str, metric: str | None, every: int) -> None:
    """ValueError where a run cannot go by a figure; `every`: steps between its evaluations, 0 for none on the way."""
    if metric is None:
        return
    name = _name(metric)
    if not metric.startswith("eval/") or not name:
        raise ValueError(f"{setting}={metric}: allowed is a figure of evaluations, such as eval/kl or eval/accuracy")
    if name in NEITHER:
        raise ValueError(f"{setting}={metric}: neither more nor less of it is better; allowed is one that says how "
                         "good the student is, such as eval/kl or eval/accuracy")  # fmt: skip
    if not every:
        raise ValueError(f"{setting}={metric}: it is measured every eval.every=0 steps, never; allowed is from 1")


def less_is_better(metric: str) -> bool:
    """Which way a figure of evaluations is better; that of one task (`eval/accuracy/NAME`) as that of all."""
    return _name(metric) in LESS


def _name(metric: str) -> str:
    return metric.removeprefix("eval/").split("/")[0]
