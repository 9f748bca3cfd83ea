"""What a run comes to: parameters, learning rate, rows and epochs, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opd.config.settings import Config
from opd.console import figures
from opd.survey.found import Found

BILLION = 1e9
FEWEST = 0.01
"""Epochs that are shown as a number; less is less."""


@dataclass(frozen=True)
class Rows:
    """One task's prompts to train on."""

    task: str
    count: int | None
    """Those that are drawn from; None where they were not looked at."""
    dropped: int | None
    """Those that are too long or empty, beside them; None where they were not counted in tokens."""
    drawn: float
    """How many a run draws, of a mixture on average."""

    @property
    def epochs(self) -> float | None:
        """How often each is drawn."""
        return self.drawn / self.count if self.count else None

    def __str__(self) -> str:
        if self.epochs is None:
            return f"{self.task}: rows not looked at, {self.drawn:,.0f} prompts drawn"
        epochs = f"{self.epochs:.2f}" if self.epochs >= FEWEST else f"less than {FEWEST}"
        left = f" ({self.dropped:,} more are too long or empty)" if self.dropped else ""
        unsure = " (not counted in tokens)" if self.dropped is None else ""
        return f"{self.task}: {self.count:,} prompts{left}{unsure}, {self.drawn:,.0f} drawn, {epochs} epochs"


def rows_of(cfg: Config, found: Found) -> Iterator[Rows]:
    """Each task that is trained on."""
    weights = dict(cfg.data.weights) if cfg.data.weights else dict.fromkeys(cfg.data.tasks, 1.0)
    total = cfg.steps * cfg.data.prompts_per_step
    for name, weight in weights.items():
        if weight > 0:
            drawn = total * weight / sum(weights.values())
            yield Rows(name, found.rows.get(name), found.dropped.get(name), drawn)


def parameters(found: Found) -> tuple[int, int] | None:
    """How many the student has, adapters included, and how many are trained; None where that is not known."""
    if found.shape is None:
        return None
    weights = found.shape.weights
    return sum(w.count for w in weights), sum(w.count for w in weights if w.trained)


def rate(cfg: Config) -> str:
    """The learning rate and what becomes of it."""
    o = cfg.optim
    warm = f" after {o.warmup_steps} steps of warm-up" if o.warmup_steps else ""
    end = "" if o.schedule == "constant" else f" to {o.lr * o.min_lr_ratio:g}"
    each = f", {o.steps_per_batch} optimizer steps a step" if o.steps_per_batch > 1 else ""
    return f"{o.lr:g}, {o.schedule}{end}{warm}{each}"


def lines(cfg: Config, found: Found, notes: Sequence[str]) -> list[str]:
    """Beside what is configured; `notes` on how that came to be, and what was not looked at last."""
    known = parameters(found)
    said = "not known before the model is there"
    if known is not None:
        said = f"{size(known[0])}, {size(known[1])} of them trained ({figures.share(known[1] / known[0])})"
    return [
        f"  parameters {said}",
        f"  rate       {rate(cfg)}",
        *(f"  rows       {rows}" for rows in rows_of(cfg, found)),
        *(f"  data       {note}" for note in found.notes),
        *(f"  note       {note}" for note in (*found.warnings, *notes)),
        *(f"not looked at: {unseen}" for unseen in found.unseen),
    ]


def size(value: float) -> str:
    """A number of parameters."""
    return f"{value / BILLION:.2f}B" if value >= BILLION else figures.count(value)


def record(cfg: Config, found: Found) -> dict[str, Any]:
    """The same as plain data, for JSON."""
    known = parameters(found)
    return {
        "parameters": known and known[0], "trained": known and known[1], "lr": cfg.optim.lr,
        "schedule": cfg.optim.schedule, "warmup_steps": cfg.optim.warmup_steps, "steps": cfg.steps,
        "prompts_per_step": cfg.data.prompts_per_step,
        "data": {r.task: {"rows": r.count, "dropped": r.dropped, "drawn": r.drawn, "epochs": r.epochs}
                 for r in rows_of(cfg, found)},
        "evaluated": None if found.evaluated is None else dict(found.evaluated),
        "warnings": found.warnings, "not_looked_at": found.unseen,
    }  # fmt: skip
