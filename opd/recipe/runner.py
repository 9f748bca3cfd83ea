"""Run the stages of a recipe, some at once, going on where an earlier try has stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from opd.interrupt import Interrupted, StopSignal
from opd.metrics import read_metrics
from opd.recipe.stage import Stage
from opd.recipe.watch import Watch
from opd.recipe.work import Work
from opd.types import RunError

POLL = 0.2
"""Seconds between looks at what is running."""


@dataclass(frozen=True)
class Running:
    """A stage's process, the lane of cores that it runs on, and since when."""

    stage: Stage
    process: subprocess.Popen[bytes]
    lane: int
    since: float
    files: tuple[IO[bytes], ...]

    def close(self) -> None:
        """Close what it writes to."""
        for file in self.files:
            file.close()


def run_stages(stages: Sequence[Stage], recipe: Path, work: Work, jobs: int, watch: Watch) -> None:
    """Run those that are not done, `jobs` at once, each after the stages that it needs.

    Raises:
        UserError: a stage was done with other settings; nothing was started.
        RunError: a stage failed; those beside it were let to end, no other was started.
        Interrupted: a signal came; runs have saved their state.
    """
    done = {s.name for s in stages if work.done(s.name, s.says)}
    waiting = [s for s in stages if s.name not in done]
    running: list[Running] = []
    failed: list[Stage] = []
    told: set[str] = set()
    watch.begin(len(stages), len(done))
    with StopSignal() as stop:
        try:
            while running or (waiting and not failed and not stop.requested):
                while len(running) < jobs and not failed and not stop.requested:
                    ready = next((s for s in waiting if done.issuperset(s.after)), None)
                    if ready is None:
                        break
                    lane = min(set(range(jobs)) - {r.lane for r in running})
                    waiting.remove(ready)
                    running.append(start(ready, recipe, work, lane, jobs))
                    watch.started(ready)
                step(running, done, failed, work, watch)
                tell(running, stop, told)
        finally:  # a second signal: KeyboardInterrupt
            for r in running:
                r.process.kill()
                r.process.wait()
                r.close()
    if stop.requested:
        raise Interrupted(stop.signal, "stopped, state saved; go on with the same command")
    if failed:
        log = work.log(failed[0].name)
        raise RunError(f"{failed[0].name} failed: {last_line(log)}; all it said is in {log}; the others stay done")


def step(running: list[Running], done: set[str], failed: list[Stage], work: Work, watch: Watch) -> None:
    """Look at every process once, and wait a moment."""
    time.sleep(POLL)
    for r in list(running):
        code = r.process.poll()
        if code is None:
            watch.at(r.stage, steps_of(work, r.stage))
            continue
        code = 128 - code if code < 0 else code  # ended by a signal, as a shell counts it
        running.remove(r)
        r.close()
        seconds = time.monotonic() - r.since
        if code == 0:
            if r.stage.prints_json:
                partial(work, r.stage).replace(work.path / f"{r.stage.name}.json")
            work.mark(r.stage.name, r.stage.says, seconds)
            done.add(r.stage.name)
        elif code not in (130, 143):
            failed.append(r.stage)
        watch.ended(r.stage, seconds, code)


def start(stage: Stage, recipe: Path, work: Work, lane: int, jobs: int) -> Running:
    """Start a stage's process on its share of the cores."""
    log = work.log(stage.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    said = log.open("ab")
    files: tuple[IO[bytes], ...] = (said,)
    out = said
    if stage.prints_json:
        out = partial(work, stage).open("wb")
        files = (said, out)
    command = stage.begin(work, recipe)
    said.write(f"$ {' '.join(command)}\n".encode())
    said.flush()
    with Share(lane, jobs):
        # A group of its own: a Ctrl-C at the terminal is handed on once, by `tell`.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=said, process_group=0, cwd=work.path,
            env=beside(recipe),
        )  # fmt: skip
    return Running(stage, process, lane, time.monotonic(), files)


def beside(recipe: Path) -> dict[str, str]:
    """The environment, in which Python also finds what lies in the recipe's folder: a `_target_` that only it has."""
    places = [str(recipe.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


class Share:
    """Cores of a lane, handed down to the processes that are started inside; nothing where that cannot be set."""

    def __init__(self, lane: int, lanes: int) -> None:
        self.cores: list[int] = []
        if lanes > 1 and sys.platform == "linux":
            self.all = sorted(os.sched_getaffinity(0))
            self.cores = self.all[lane :: min(lanes, len(self.all))]

    def __enter__(self) -> None:
        if self.cores:
            os.sched_setaffinity(0, self.cores)

    def __exit__(self, *error: object) -> None:
        if self.cores:
            os.sched_setaffinity(0, self.all)


def tell(running: Sequence[Running], stop: StopSignal, told: set[str]) -> None:
    """Hand a signal on, once to each stage."""
    for r in running:
        if stop.requested and r.stage.name not in told:
            r.process.send_signal(stop.signal)
            told.add(r.stage.name)


def partial(work: Work, stage: Stage) -> Path:
    """Where a stage's output goes until it is whole."""
    return work.path / f"{stage.name}.json.part"


def steps_of(work: Work, stage: Stage) -> float | None:
    """Steps that a run has behind it; None for other stages, and before the first."""
    metrics = work.run(stage.name).metrics
    rows = read_metrics(metrics) if metrics.is_file() else []
    return rows[-1]["step"] if rows else None


def last_line(log: Path) -> str:
    """The last thing that a stage has said."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
