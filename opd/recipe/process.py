"""A stage's process: how it is started, on which cores, and what it has to say when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from opd import children
from opd.config.trust import VARIABLE
from opd.recipe.stage import OPD, Stage
from opd.recipe.work import Work
from opd.run.interrupt import StopSignal

End = Literal["done", "stopped", "failed"]


@dataclass(frozen=True)
class How:
    """How stages are run."""

    jobs: int = 1
    """Stages at once."""
    held: tuple[int, ...] = ()
    """Open files that a stage inherits: the lock of the work folder, which it keeps if it outlives its parent."""
    debug: bool = False
    """Whether the commands show their tracebacks."""


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


def start(stage: Stage, recipe: Path, work: Work, lane: int, how: How) -> Running:
    """Start a stage's process on its share of the cores."""
    log = work.log(stage.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    work.stamps.begin(stage.name, stage.says)
    said = log.open("ab")
    files: tuple[IO[bytes], ...] = (said,)
    out = said
    if stage.prints_json:
        out = partial(work, stage).open("wb")
        files = (said, out)
    command = stage.begin(work, recipe)
    if how.debug and tuple(command[: len(OPD)]) == OPD:
        command = [*command, "--debug"]
    said.write(f"$ {' '.join(' '.join(command).split())}\n".encode())  # on one line, which `last_words` knows by the $
    said.flush()
    with Share(lane, how.jobs):
        # A group of its own: a Ctrl-C at the terminal is handed on once, by `tell`.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=said, process_group=0, cwd=work.path,
            env=beside(recipe), pass_fds=how.held,
        )  # fmt: skip
    return Running(stage, process, lane, time.monotonic(), files)


def beside(recipe: Path) -> dict[str, str]:
    """The environment, in which Python also finds what lies in the recipe's folder: a `_target_` that only it has."""
    places = [str(recipe.parent), *filter(None, [children.environment().get(children.PLACES)])]
    own = [*os.environ.get(VARIABLE, "").split(), *(file.stem for file in recipe.parent.glob("*.py"))]
    return {**os.environ, children.PLACES: os.pathsep.join(places), VARIABLE: " ".join(own)}


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


def ended(code: int, stop: StopSignal) -> End:
    """What an exit code means; one that tells of a signal is a failure where nobody has asked for a stop."""
    if code == 0:
        return "done"
    return "stopped" if stop.requested and code in (-stop.signal, 128 + stop.signal) else "failed"


def partial(work: Work, stage: Stage) -> Path:
    """Where a stage's output goes until it is whole."""
    return work.path / f"{stage.name}.json.part"


def last_words(code: int, log: Path) -> str:
    """Why a stage has failed: the signal that killed it, else the last thing that it has said."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "$ ")
    return f"it said nothing and ended with exit code {code}" if last.startswith("$ ") else last
