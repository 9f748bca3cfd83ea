"""`opd runs`: the runs in a folder, one line each."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opd.config.arguments import Debug, Json, echo

if TYPE_CHECKING:
    from opd.run.overview import Figure, Overview

SPARED = ("size", "age", "health", "config", "method")
"""Columns that a narrow terminal goes without, in this order."""


def runs(
    folder: Annotated[str, typer.Argument(metavar="[DIR]", help="The folder that they are in, or one run.")] = "runs",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the runs in a folder, last written to first: state, steps, reverse KL, best evaluation, verdicts."""
    from opd.run.overview import overviews

    found = overviews(folder)
    if as_json:
        echo(json.dumps(legal([o.plain() for o in found]), indent=2, ensure_ascii=False))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    echo(shown(found, time.time(), width) if found else f"there is no run in {folder}/ yet")


def shown(found: Sequence[Overview], now: float, width: int | None = None) -> str:
    """The table, and a line for each run that there is more to say of; `width`: columns of the terminal."""
    from opd.console.plain import draw
    from opd.console.tables import Grid

    table: dict[str, list[str]] = {
        "run": [o.path.name for o in found],
        "config": [o.conf for o in found],
        "method": [o.method for o in found],
        "state": [state(o) for o in found],
        "step": [step(o) for o in found],
        "KL": [divergence(o) for o in found],
        "best evaluation (95%)": [figure(o.best) for o in found],
        "health": [health(o.verdicts) for o in found],
        "age": [age(now - o.written) for o in found],
        "size": [size(o.bytes) if o.bytes else "" for o in found],
    }
    spared = list(SPARED)
    while True:
        grid = Grid("", tuple(table), tuple(zip(*table.values(), strict=True)))
        lines = [line.rstrip() for line in draw(grid)[1:]]
        if width is None or max(map(len, lines)) <= width or not spared:
            break
        del table[spared.pop(0)]
    notes = [f"{o.path.name}: {said}" for o in found if (said := told(o))]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def state(run: Overview) -> str:
    """In a word or two, and whether there is nothing to go on from."""
    if run.state == "no run":
        return "no run (no config.yaml)"
    return run.state + ("" if run.checkpoint is not None or run.state.startswith("running") else ", no checkpoint")


def step(run: Overview) -> str:
    """`40/100`."""
    return "" if run.step is None else f"{run.step}/{'?' if run.steps is None else run.steps}"


def divergence(run: Overview) -> str:
    """`0.612 → 0.081`, nats a token."""
    from opd.console import figures

    return "" if run.kl is None else " → ".join(map(figures.number, run.kl))


def told(run: Overview) -> str:
    """What there is to say of a run beside its line."""
    said = [run.note] if run.state not in ("stopped", "no run") else []
    return "; ".join(filter(None, [*said, *(f"verdict: {name}" for name in run.verdicts or ())]))


def health(verdicts: Sequence[str] | None) -> str:
    """How many verdicts there are; nothing where nobody has looked."""
    if verdicts is None:
        return "-"
    return f"{len(verdicts)} verdict{'s' if len(verdicts) > 1 else ''}" if verdicts else "good"


def figure(best: Figure | None) -> str:
    """`71.0% [66.2, 75.5] at 40`, or `KL 0.081 at 40`."""
    from opd.console import figures
    from opd.console.tables import accuracy

    if best is None:
        return ""
    at = "" if best.step is None else f" at {best.step}"
    if best.metric != "eval/accuracy":
        return f"KL {figures.number(best.value)}{at}"
    ends = {f"eval/accuracy{end}": v for end, v in (("", best.value), ("_low", best.low), ("_high", best.high))}
    return accuracy({name: value for name, value in ends.items() if value is not None}) + at


def age(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `8 days`."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(count: int) -> str:
    """Bytes in a person's units, of a thousand each."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count} B"


def legal(value: Any) -> Any:
    """The same without numbers that JSON does not have: they are null."""
    if isinstance(value, dict):
        return {key: legal(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [legal(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
