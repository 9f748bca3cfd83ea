"""`opd diff`: what is different about two runs, and what has come of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opd.config.arguments import Debug, Json, echo
from opd.types import UserError

if TYPE_CHECKING:
    from opd.report.contrast import Curve, Measured
    from opd.report.record import Record

TITLES = {
    "kl/exact": "reverse KL, nats/token", "kl/sampled": "reverse KL, sampled", "rollout/reward": "reward",
    "rollout/length": "tokens a completion", "rollout/truncated": "truncated", "kl/student_entropy": "entropy",
    "optim/grad_norm": "gradient norm",
}  # fmt: skip


def diff(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN", help="Two run folders.", show_default=False)],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two runs: settings, evaluations with intervals, where the curves part, versions."""
    from opd.commands.runs import legal
    from opd.report import contrast
    from opd.report.record import differences, find_runs, read_records

    if len(runs) != 2:
        raise UserError(f"RUN: two runs are compared, and {len(runs)} is given; more go into opd report RUN RUN RUN")
    found = find_runs(runs)
    if len(found) != 2:
        raise UserError(f"{runs[1]}: this is the same run as the first; name another one")
    first, second = read_records(found)
    pair = (first, second)
    curves = [c for metric in contrast.CURVES if (c := contrast.curve(first.rows, second.rows, metric))]
    measured, notes = contrast.evaluations(pair)
    said: dict[str, Any] = {
        "runs": [str(r.run.path) for r in pair],
        "settings": differences(pair),
        "environment": environments(pair),
        "alike_until": contrast.alike(first.rows, second.rows),
        "curves": [asdict(c) for c in curves],
        "evaluations": [asdict(m) | {"beyond_noise": m.beyond} for m in measured],
        "not_compared": notes,
    }
    echo(
        json.dumps(legal(said), indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(text(pair, said, curves, measured))
    )


def environments(pair: Sequence[Record]) -> dict[str, list[str]]:
    """Versions and hardware that are not the same; what a run does not say is `-`."""
    from opd.plain import flat

    sides = [dict(flat(r.environment)) for r in pair]
    keys = dict.fromkeys(key for side in sides for key in side if key)
    table = {key: [side.get(key, "-") for side in sides] for key in keys}
    return {key: values for key, values in table.items() if values[0] != values[1]}


def text(
    pair: tuple[Record, Record], said: dict[str, Any], curves: Sequence[Curve], measured: Sequence[Measured]
) -> Iterator[str]:
    """All of it for people."""
    names = [r.name for r in pair]
    yield from table("settings that differ", ("", *names), [(key, *values) for key, values in said["settings"].items()])
    rows = [evaluated(m) for m in measured]
    yield from table("evaluations (95% intervals)", ("", *names, "second - first", "beyond noise"), rows)
    yield from said["not_compared"]
    rows = [(TITLES[c.metric], *map(number, c.ends), apart(c), parting(c)) for c in curves]
    last = curves[0].window if curves else 0
    yield from table(
        f"curves: means of the last {last} steps that both have", ("", *names, "second - first", "they part"), rows
    )
    until = said["alike_until"]
    if until:
        yield f"\nthe same figures to the bit up to step {until}"
    rows = [(key.removeprefix("packages."), *values) for key, values in said["environment"].items()]
    yield from table("versions and hardware that differ", ("", *names), rows)
    if not any("commit" in r.environment for r in pair):
        yield "code: only versions are recorded, no commit"


def table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """A titled table, or one line that says that there is nothing in it."""
    from opd.console.plain import draw
    from opd.console.tables import Grid

    if not rows:
        yield f"{title}: none"
    else:
        drawn = draw(Grid(title, header, tuple(rows)))
        yield from ["", *(line.rstrip() for line in drawn)]


def evaluated(m: Measured) -> tuple[str, ...]:
    """The line of one figure."""
    shown = percent if m.metric.startswith(("eval/accuracy", "eval/pass@", "eval/avg@", "eval/truncated")) else number
    sides = [
        f"{shown(value)} [{shown(ends[0])}, {shown(ends[1])}]" if ends else shown(value)
        for value, ends in zip(m.values, m.intervals or (None, None), strict=True)
    ]
    known = m.low is not None and m.high is not None
    distance = f"{shown(m.difference, '+')}" + (f" [{shown(m.low, '+')}, {shown(m.high, '+')}]" if known else "")
    verdict = {True: "yes", False: "no", None: "not known (no interval)"}[m.beyond]
    return (f"{m.model}: {m.metric.removeprefix('eval/')}", *sides, distance, verdict)


def percent(value: float | None, sign: str = "") -> str:
    """A share of one."""
    return "-" if value is None else f"{100 * value:{sign}.1f}%"


def number(value: float | None, sign: str = "") -> str:
    """A figure of any size."""
    return "-" if value is None else f"{value:{sign}.4g}"


def apart(c: Curve) -> str:
    """The difference of the ends, with two standard errors: about 95%."""
    return "-" if c.difference is None or c.error is None else f"{c.difference:+.3g} ± {2 * c.error:.2g}"


def parting(c: Curve) -> str:
    """Where two curves part, as far as that can be said."""
    if c.difference is None:
        return f"not to be said of {c.steps} shared steps"
    if c.parted is not None:
        return f"from step {c.parted} on"
    return f"until step {c.met}, then no more" if c.met is not None else f"nowhere beyond noise in {c.steps} steps"
