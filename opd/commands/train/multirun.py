"""`opd train --multirun`: every combination of a sweep, one after the other, each in its own process."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from opd import children
from opd.config.catalog import unnamed
from opd.config.compose import load
from opd.config.overrides import sweep
from opd.hints import printable, quoted
from opd.run.directory import new_run, numbered
from opd.run.interrupt import Interrupted, StopSignal
from opd.run.owner import made
from opd.types import UserError

Launch = Callable[[Sequence[str], StopSignal], int]
NONE = ("not begun", "", "", "")
"""What a table says of a run that has ended before it had a folder."""
LONGEST = 100
"""Characters of a name that a config may have."""
POLL = 0.2
"""Seconds between looks at whether a signal has come."""


def run_all(
    named: Mapping[str, str], overrides: Sequence[str], flags: Sequence[str], launch: Launch | None = None
) -> int:
    """Check all combinations, then run them; returns the number that failed.

    A process each: an engine that was started and closed leaves memory and thread settings behind, and a run that
    fails must not take the others with it.

    Raises:
        UserError: one of the combinations is no valid config; none was started.
        Interrupted: a signal came; the run that was under way has saved its state, the rest were not started.
    """
    if "conf" not in named:
        raise unnamed(overrides)
    if "run" in named:
        raise UserError(
            f"run={named['run']}: the runs of --multirun cannot share one folder; leave it out, or set runs=DIR"
        )
    if "--resume" in flags:
        raise UserError("--resume: allowed is one run at a time, without --multirun")
    combinations = sweep(overrides)
    configs = [load(named["conf"], combination).config for combination in combinations]
    names = [
        run_name(c.name, i, overrides, own) for i, (c, own) in enumerate(zip(configs, combinations, strict=True), 1)
    ]
    found: list[Path | None] = []
    failed = []
    try:
        with StopSignal() as stop:
            for i, (name, combination) in enumerate(zip(names, combinations, strict=True), 1):
                with own_folder(configs[i - 1].runs, name) as path:
                    arguments = ["train", f"conf={named['conf']}", *combination, f"name={name}", f"run={path}"]
                    print(printable(f"[{i}/{len(names)}] opd {' '.join(arguments)}"), flush=True)
                    code = (launch or run_one)([*arguments, *flags], stop)
                found.append(path if path.exists() else None)
                if stop.requested:
                    rest = len(names) - i
                    raise Interrupted(stop.signal, f"stopped in run {i} of {len(names)}; {rest} were not started")
                failed += [name] if code else []
    finally:
        if table := results(overrides, combinations, found):
            print(printable(table, keep="\n"), flush=True)
    print(
        f"{len(names) - len(failed)} of {len(names)} runs done" + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return len(failed)


@contextmanager
def own_folder(root: str, name: str) -> Iterator[Path]:
    """A folder for a run, which no other sweep has, be it of the same name at the same time; none stays empty."""
    with ExitStack() as stack:
        yield next(p for p in numbered(new_run(root, name).path) if stack.enter_context(made(p, first=True)))


def results(overrides: Sequence[str], combinations: Sequence[Sequence[str]], made: Sequence[Path | None]) -> str:
    """What the runs have come to: a line each, by the settings that differ, and the command for a report of them."""
    from opd.commands.runs import divergence, figure, state, step
    from opd.console.plain import draw
    from opd.console.tables import Grid
    from opd.report.colors import RUNS
    from opd.run.overview import overview

    found = [overview(path) if path else None for path in made]
    if not any(found):
        return ""
    varied = [dict(c.split("=", 1) for c in own if c not in overrides) for own in combinations[: len(made)]]
    keys = dict.fromkeys(key for own in varied for key in own)
    rows = [
        (
            str(i),
            *(own.get(key, "") for key in keys),
            *((state(o), step(o), divergence(o), figure(o.last)) if o else NONE),
        )
        for i, (own, o) in enumerate(zip(varied, found, strict=True), 1)
    ]
    grid = Grid("", ("run", *keys, "state", "step", "KL", "last evaluation (95%)"), tuple(rows))
    learned = [quoted(str(o.path)) for o in found if o and o.step is not None]
    some = f"   (the first {RUNS})" if len(learned) > RUNS else ""
    way = [f"compare:  opd report {' '.join(learned[:RUNS])}{some}"] if learned else []
    return "\n".join(["", *(line.rstrip() for line in draw(grid)[1:]), *way])


def run_name(base: str, number: int, overrides: Sequence[str], combination: Sequence[str]) -> str:
    """A name that says what is different in this run: `tiny-2-lr-1e-5`."""
    changed = [c for c in combination if c not in overrides]
    said = (f"{c.split('=', 1)[0].rsplit('.', 1)[-1]}-{c.split('=', 1)[1]}" for c in changed)
    whole = "-".join([base[: LONGEST - 20], str(number), *(re.sub(r"[^\w.+-]+", "_", text)[:40] for text in said)])
    return whole[:LONGEST]


def run_one(arguments: Sequence[str], stop: StopSignal) -> int:
    """Run `opd` with `arguments`, handing on the signals that this process gets; returns its exit code."""
    # A group of its own: a Ctrl-C at the terminal goes to the whole foreground group, and the child would get it twice.
    process = subprocess.Popen(children.command("opd", *arguments), env=children.environment(), process_group=0)
    told = False
    try:
        while True:
            try:
                return process.wait(POLL)
            except subprocess.TimeoutExpired:
                if stop.requested and not told:
                    process.send_signal(stop.signal)
                    told = True
    finally:  # a second signal: KeyboardInterrupt
        if process.poll() is None:
            process.kill()
            process.wait()
