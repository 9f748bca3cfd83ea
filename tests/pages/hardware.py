"""docs/hardware.md: which pairs of models fit where, and what they cost, as `opd plan` predicts it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from opd.config.compose import load
from opd.plan.cards import card
from opd.plan.forecast import Forecast, forecast
from opd.plan.layout import layout_of
from opd.plan.work import Lengths
from tests.pages import DOCS

PAGE = DOCS / "hardware.md"
CARDS = ("4090", "l40s", "a100-80", "h100", "h200", "b200")
"""By memory: 24, 48, 80, 80, 141, 180 GB."""
PROMPT, COMPLETION = 200, 1000
"""Mean tokens."""
WORK = ("sampling.max_tokens=2048", "data.prompts_per_step=64")
ALL = ("student=full", "student.lora=null", "student.gradient_checkpointing=true", "optim.lr=5e-5")


@dataclass(frozen=True)
class Row:
    """A pair of models, and what is trained."""

    student: str
    teacher: str
    lora: bool


@functools.cache
def forecast_of(row: Row, name: str, gpus: int = 1) -> Forecast:
    """What a step of it comes to."""
    models = (f"student.model=Qwen/Qwen3-{row.student}", f"teacher.model=Qwen/Qwen3-{row.teacher}")
    devices = ("devices=ranks", f"devices.ranks={gpus}") if gpus > 1 else ()
    config = load("math_qwen", [*models, *WORK, *(() if row.lora else ALL), *devices]).config
    return forecast(config, card(name), layout_of(config, gpus), Lengths.of(config, PROMPT, COMPLETION))


ROWS = tuple(
    Row(student, teacher, lora)
    for student, teacher in (("0.6B", "4B"), ("1.7B", "8B"), ("4B", "14B"), ("8B", "32B"))
    for lora in (True, False)
)


def made(rows: Sequence[Row] = ROWS) -> str:
    """The table."""
    names = ("student", "teacher", "trained", "fits on one", "a step on the first", "150 steps on it",
             "a step on 8 H100", "150 steps on them")  # fmt: skip
    table = [names, ("---",) * len(names), *map(line, rows)]
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table) + "\n"


def line(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    fits = [name for name in CARDS if forecast_of(row, name).fits]
    one, eight = forecast_of(row, fits[0]) if fits else None, forecast_of(row, "h100", 8)
    trained = "LoRA" if row.lora else "all weights"
    return (
        f"Qwen3-{row.student}", f"Qwen3-{row.teacher}", trained, ", ".join(fits) or "none",
        *(cost(one) if one else ("", "")), *(cost(eight) if eight.fits else ("does not fit", "")),
    )  # fmt: skip


def cost(found: Forecast) -> tuple[str, str]:
    """Seconds of a step, and GPU hours of all."""
    return f"{found.step:.0f} s", f"{found.hours * found.gpus:.1f} GPU hours"
