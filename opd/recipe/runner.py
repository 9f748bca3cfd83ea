"""Run the stages of a recipe, some at once, going on where an earlier try has stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from opd.recipe.process import How, Running, ended, last_words, partial, start, tell
from opd.recipe.stage import Stage
from opd.recipe.watch import Watch
from opd.recipe.work import Work
from opd.run.interrupt import Interrupted, StopSignal
from opd.run.metrics import read_metrics
from opd.types import RunError

POLL = 0.2
"""Seconds between looks at what is running."""

Failed = list[tuple[Stage, int]]
"""Stages with the exit codes of their processes, negative for a signal."""


def run_stages(stages: Sequence[Stage], recipe: Path, work: Work, how: How, watch: Watch) -> None:
    """Run those that are not done, `how.jobs` at once, each after the stages that it needs.

    Raises:
        UserError: a stage was done, or half done, with other settings, or its place is taken; nothing was started.
        RunError: a stage failed; those beside it were let to end, no other was started.
        Interrupted: a signal came; runs have saved their state.
    """
    work.stamps.adopt()
    done = still_done(stages, work)
    waiting = [s for s in stages if s.name not in done]
    damaged = [said for s in waiting for said in work.stamps.unreadable(s.name)]
    for s in waiting:
        work.stamps.check(s.name, s.says)
    for s in waiting:  # also of those that are done but come after one that is not: once that is, none could tell
        work.stamps.forget(s.name)
        if not done.issuperset(s.after):  # what it has half done, it has done with what is made again now
            work.stamps.outdate(s.name)
    running: list[Running] = []
    failed: Failed = []
    told: set[str] = set()
    watch.begin(len(stages), len(done))
    for said in damaged:
        watch.say(f"warning: {said}")
    with StopSignal() as stop:
        try:
            while running or (waiting and not failed and not stop.requested):
                while len(running) < how.jobs and not failed and not stop.requested:
                    ready = next((s for s in waiting if done.issuperset(s.after)), None)
                    if ready is None:
                        break
                    lane = min(set(range(how.jobs)) - {r.lane for r in running})
                    waiting.remove(ready)
                    running.append(start(ready, recipe, work, lane, how))
                    watch.started(ready)
                step(running, done, failed, work, watch, stop)
                tell(running, stop, told)
        finally:  # a second signal: KeyboardInterrupt
            abort(running)
    raise_for(failed, stop, work)


def still_done(stages: Sequence[Stage], work: Work) -> set[str]:
    """Names of those that need not be run: done as they are now, and so is all that they come after.

    Raises:
        UserError: a stage was done with other settings.
    """
    done: set[str] = set()
    for s in stages:
        if done.issuperset(s.after) and work.stamps.done(s.name, s.says):
            done.add(s.name)
    return done


def step(running: list[Running], done: set[str], failed: Failed, work: Work, watch: Watch, stop: StopSignal) -> None:
    """Look at every process once, and wait a moment."""
    time.sleep(POLL)
    for r in list(running):
        code = r.process.poll()
        if code is None:
            watch.at(r.stage, steps_of(work, r.stage))
            continue
        running.remove(r)
        r.close()
        seconds = time.monotonic() - r.since
        end = ended(code, stop)
        if end == "done":
            if r.stage.prints_json:
                partial(work, r.stage).replace(work.path / f"{r.stage.name}.json")
            work.stamps.end(r.stage.name, r.stage.says, seconds)
            done.add(r.stage.name)
        elif end == "failed":
            failed.append((r.stage, code))
        watch.ended(r.stage, seconds, end, code)


def abort(running: Sequence[Running]) -> None:
    """End what is still there at once."""
    for r in running:
        r.process.kill()
        r.process.wait()
        r.close()


def raise_for(failed: Failed, stop: StopSignal, work: Work) -> None:
    """Say why not all stages are done, where that is so."""
    if stop.requested:
        raise Interrupted(stop.signal, "stopped, state saved; go on with the same command")
    if failed:
        stage, code = failed[0]
        log = work.log(stage.name)
        raise RunError(f"{stage.name} failed: {last_words(code, log)}; all it said is in {log}; the others stay done")


def steps_of(work: Work, stage: Stage) -> float | None:
    """Steps that a run has behind it; None for other stages, and before the first."""
    metrics = work.run(stage.name).metrics
    rows = read_metrics(metrics) if metrics.is_file() else []
    return rows[-1]["step"] if rows else None
