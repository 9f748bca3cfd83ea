"""The page: everything that is in it, and the template filled with it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from os.path import isdir  # which is False, and no error, for a name that is too long
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from opd.disk import whole
from opd.hints import quoted
from opd.places import typed
from opd.report import chart, colors, curves, heat, samples, tables
from opd.report.record import Record, default_place, differences, find_runs, read_records
from opd.report.series import POINTS
from opd.report.summary import told
from opd.run.transcripts import Transcript, read_transcripts
from opd.types import RunError, UserError


@dataclass(frozen=True)
class Shown:
    """One completion as the page shows it."""

    number: int
    """Its place in the step's file, from 1."""
    transcript: Transcript
    tokens: Markup
    mean: str
    """Of `log mu - log q` over its trained tokens that the teacher judged."""


@dataclass(frozen=True)
class Column:
    """One run at one step."""

    cell: samples.Cell
    name: str
    shown: tuple[Shown, ...]


def write_report(named: Sequence[str], out: Path | None = None, steps: Sequence[int] = ()) -> Path:
    """Write the page of these runs, the newest one where none is named, and return where it is.

    Raises:
        UserError: a folder is no run or has no step yet, a step was not recorded, or the file cannot be written.
    """
    found = find_runs(named)
    if len(found) > colors.RUNS:
        raise UserError(f"RUN: {len(found)} runs are given; a page tells at most {colors.RUNS} apart")
    place = default_place(found) if out is None else typed(out)
    if isdir(place) or not isdir(place.parent):
        wrong = "it is a folder" if isdir(place) else f"there is no folder {place.parent}"
        raise UserError(f"--out {place}: {wrong}; name a file, as in --out report.html")
    page = render(read_records(found), steps)
    try:
        with whole(place, follow=out is not None) as part:
            part.write_text(page, encoding="utf-8")
    except RunError as error:
        raise UserError(f"--out {error}; name another file") from error
    return place


def render(records: Sequence[Record], steps: Sequence[int] = ()) -> str:
    """The whole page as HTML."""
    recorded = [r.recorded for r in records]
    chosen = samples.choose_steps(recorded, steps)
    cells = samples.make_cells(recorded, chosen, lambda run, step: read_transcripts(records[run].run.rollouts, step))
    sections = curves.make_sections(records)
    points = curves.readout(records, sections) | {
        "plot": [chart.WIDTH, chart.LEFT, chart.RIGHT, chart.TOP, chart.BOTTOM]
    }
    page = _template().render(
        records=records,
        title=", ".join(r.name for r in records),
        differences=differences(records) if len(records) > 1 else {},
        told=[told(r) for r in records],
        summary=tables.summary_grid(records),
        evaluations=tables.evaluation_grids(records),
        costs=tables.cost_grids(records),
        sections=sections,
        axes=list(points["names"].items()),
        thinned=any(len(r.rows) > POINTS for r in records),
        columns={step: [_column(c, records) for c in cells if c.step == step] for step in chosen},
        recorded=sorted({step for steps in recorded for step in steps}),
        worst=samples.worst_tokens(cells),
        judged=any(not math.isnan(t.teacher_logprob) for c in cells for s in c.samples for t in s.tokens),
        alternatives=any(t.alternatives for c in cells for s in c.samples for t in s.tokens),
        legend=heat.legend(),
        css=Markup(f"{colors.css()}\n{_text('page.css')}"),
        script=Markup(_text("page.js")),
        curves_json=Markup(heat.script_json(points)),
        facts_json=Markup(heat.script_json(heat.facts(cells))),
    )
    return heat.without_controls(page)


def _column(cell: samples.Cell, records: Sequence[Record]) -> Column:
    shown = [
        Shown(cell.numbers[i], t, Markup(heat.token_elements(cell, i)), _mean(t)) for i, t in enumerate(cell.samples)
    ]
    return Column(cell, records[cell.run].name, tuple(shown))


def _mean(transcript: Transcript) -> str:
    values = [v for t in transcript.tokens if not math.isnan(v := t.disagreement)]
    return nats(math.fsum(values) / len(values)) if values else "-"


def nats(value: float | None) -> str:
    """Nats to a thousandth, `-` where there are none."""
    return "-" if value is None or math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"


def _text(name: str) -> str:
    return resources.files("opd.report").joinpath(name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["svg"] = _svg
    environment.filters["nats"] = nats
    environment.filters["shell"] = quoted
    environment.filters["quoted"] = partial(json.dumps, ensure_ascii=False)
    return environment.from_string(_text("page.html"))


def _svg(drawing: Any) -> Markup:
    """A drawing's text is made of numbers and of this package's own words alone."""
    return Markup(drawing.svg)
