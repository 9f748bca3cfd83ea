"""A forecast as aligned tables for people."""

from __future__ import annotations

import math

from opd.console import figures
from opd.console.plain import draw
from opd.console.tables import Grid
from opd.plan.advice import layouts, mended
from opd.plan.forecast import Forecast, forecast
from opd.plan.memory import EXACT, PARTS, PHASES, Memory
from opd.plan.seconds import ASK, REDRAW

GB = 1e9
LEGEND = "phases of a step: the engine writes, the teacher scores, the student learns, the engine takes its new weights"


def lines(found: Forecast, gpus: int | None = None) -> list[str]:
    """All of it: memory by device, seconds by phase, the layouts beside it, and what is not known."""
    out = [f"prediction for {found.layout.setting} on {found.card.name}: nothing was loaded, nothing ran"]
    for device in found.devices:
        out += ["", *draw(memory_grid(device)), *_verdict(device, found)]
    out += ["", LEGEND, *_host(found), "", *draw(seconds_grid(found)), *_assumed(found)]
    out += ["", *draw(layout_grid(found, gpus))] if not found.card.cpu else []
    return [*out, *(f"note: {note}" for note in found.crew.notes)]


def gigabytes(value: float) -> str:
    """Bytes in GB of 10^9, in MB where they are few; empty for none."""
    if not value:
        return ""
    return f"{value / GB:.1f}" if value >= GB / 20 else f"{value / GB:.4f}"


def memory_grid(device: Memory) -> Grid:
    """A row a part, a column a phase; exact figures are marked."""
    rows = [
        (f"{name} =" if name in EXACT else name, *(gigabytes(device.phases[p].get(name, 0)) for p in PHASES))
        for name in PARTS
        if any(device.phases[p].get(name) for p in PHASES)
    ]
    total = ("total", *(gigabytes(sum(device.phases[p].values())) for p in PHASES))
    title = f"memory of {device.device} · GB of {device.capacity / GB:.1f}, = exact, others estimated"
    return Grid(title, ("", *PHASES), (*rows, total))


def _verdict(device: Memory, found: Forecast) -> list[str]:
    full = max(PHASES, key=lambda p: sum(device.phases[p].values()))
    spare = device.capacity - device.peak
    if not device.starts:
        return ["does not fit: the engine has no room for one sequence of the greatest length in its share"]
    if spare < 0:
        other = "; a teacher may also compute elsewhere: opd serve-teacher MODEL, teacher=server"
        local = other if any(j.own for j in found.crew.judges) else ""
        return [f"does not fit: {-spare / GB:.1f} GB too much in {full}{local}"]
    return [f"fits: {spare / GB:.1f} GB are left in {full}"]


def _host(found: Forecast) -> list[str]:
    """What the machines need beside their devices."""
    h = found.host
    each = f"{gigabytes(h.each)} GB"
    whole = (
        f"{h.processes} processes read all of it at once, {each} each" if h.processes > 1 else "read before it moves"
    )
    more = f"; {gigabytes(h.staying)} GB stay (an offloaded teacher, weights on their way)" if h.staying else ""
    short = "; that is more than there is" if found.card.cpu and h.loading > found.card.memory else ""
    if found.card.cpu and h.processes == 1 and not short:
        return []
    return [f"host memory of a machine: {gigabytes(h.loading)} GB while the {h.model} loads ({whole}){more}{short}"]


def seconds_grid(found: Forecast) -> Grid:
    """Seconds of each phase, and of the run."""
    rows = [(name, _seconds(value), figures.share(value / found.step)) for name, value in found.phases.items()]
    rows.append(("step", _seconds(found.step), ""))
    steps = found.crew.config.steps
    kind = "hours" if found.card.cpu else "GPU hours"
    rows.append((f"{steps} steps", _duration(found.hours), f"{_number(found.hours * found.gpus)} {kind}"))
    return Grid("seconds · predicted", ("", "seconds", "share"), tuple(rows))


def _assumed(found: Forecast) -> list[str]:
    n = found.lengths
    bound = " (the longest allowed, so an upper bound; --tokens says otherwise)" if n.completion == n.longest else ""
    beside = {
        ASK: "ask: the teacher writes first, as if each prompt was new; none is asked about twice in a run",
        REDRAW: "redraw: as if all prompts were given up in every round, so an upper bound",
    }
    ahead = "a step is the longer of generate + push and score + update, which overlap (devices.ahead)"
    return [
        *([ahead] if found.layout.ahead else []),
        *(said for phase, said in beside.items() if phase in found.phases),
        f"for prompts of {n.prompt:g} tokens and completions of {n.completion:g}{bound}; evaluations left out",
    ]


def layout_grid(found: Forecast, gpus: int | None) -> Grid:
    """The chosen layout beside others; of those that do not fit, the nearest settings that do."""
    rows = []
    for layout in layouts(found, gpus):
        tried = forecast(found.crew.config, found.card, layout, found.lengths)
        change = ""
        if not tried.fits:
            better = mended(tried)
            change, tried = better or ("nothing that was tried fits", tried)
        rows.append(
            (
                layout.setting, "yes" if not change else "no", f"{max(d.peak for d in tried.devices) / GB:.1f}",
                _seconds(tried.step), _number(tried.hours), _number(tried.hours * tried.gpus), change,
            )
        )  # fmt: skip
    header = ("layout", "fits", "GB", "s/step", "hours", "GPU hours", "what would fit, if it does not")
    return Grid("layouts · predicted, with what would fit", header, tuple(rows))


def _number(value: float) -> str:
    if math.isnan(value):
        return figures.MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(hours: float) -> str:
    return figures.MISSING if math.isnan(hours) else figures.seconds(hours * 3600)
