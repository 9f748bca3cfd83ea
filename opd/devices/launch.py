"""Start several processes that compute one run, watch over them, and leave none behind. Standard library only.

torch's own launcher is not used: it kills ranks 30 s after a signal, and a step can take minutes; it also brings torch
into a process that only waits. Ranks stay in the launcher's process group, so that the first can draw on the terminal.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from opd.devices.leftovers import sweep
from opd.devices.lifeline import LAUNCH
from opd.devices.process import begin
from opd.devices.report import Report, root_cause
from opd.devices.screen import Screen
from opd.devices.watched import Watched

POLL = 0.05
"""Seconds between looks at the ranks."""
GRACE = 5.0
"""Seconds that ranks get to notice by themselves that one of them is lost."""
ABORT = 3.0
"""Seconds that they get to give the terminal back when the run is aborted."""


class Stop(Protocol):
    """Whether a signal has come that asks for an end."""

    @property
    def signal(self) -> int:
        """Its number; 0: none."""
        ...


class Stopped(Exception):
    """It has come before there were ranks."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signal = signum


class Job(Protocol):
    """Work for one process or several, each of which carries all of it out, with its own share of the computing."""

    @property
    def command(self) -> Sequence[str]:
        """What starts it in a process of its own; the name of a file with its `text` is put behind."""
        ...

    @property
    def text(self) -> str:
        """All that such a process has to know."""
        ...

    def here(self) -> Any:
        """Carry it out in this process."""
        ...

    def listening(self) -> AbstractContextManager[Stop]:
        """Take signals over; a second one is a KeyboardInterrupt."""
        ...

    def ended(self, report: Report) -> Any:
        """What `here` would have returned or raised, by what processes of their own have reported."""
        ...


def launch(job: Job, count: int, timeout: float, grace: float = GRACE) -> Any:
    """Have `count` processes carry a job out; returns and raises what `job.ended` makes of their reports.

    Args:
        job: what to do.
        count: how many processes, on this machine.
        timeout: seconds after which a rank gives up waiting for another, to be told to people.
        grace: seconds that the others get to end by themselves after one of them has ended badly.
    """
    screen = Screen()
    with job.listening() as stop, private_folder() as place:
        (order := place / "order.json").write_text(job.text, encoding="utf-8")
        ranks: list[Watched] = []
        try:
            tend(ranks, (begin(job.command, order, rank, count) for rank in range(count)), stop, grace)
        finally:
            sweep(f"{LAUNCH}={place}")
            if any(rank.broken for rank in ranks):
                screen.give_back()
            screen.close()
        report = outcome(ranks, timeout)
    return job.ended(report)


def tend(ranks: list[Watched], begun: Iterable[Watched], stop: Stop, grace: float) -> None:
    """Let ranks begin, which are put into `ranks`, and return when all have ended, whatever ends them."""
    try:
        for rank in begun:
            ranks.append(rank)
        watch(ranks, stop, grace)
    except BaseException:
        abort(ranks)
        raise
    finally:
        for rank in ranks:
            rank.kill()


def watch(ranks: Sequence[Watched], stop: Stop, grace: float) -> None:
    """Return when all have ended; hands a signal on, and does not wait for long where one has ended badly."""
    told, last = False, float("inf")
    while alive := [process for process in ranks if not process.ended]:
        now = time.monotonic()
        if stop.signal and not told:
            told = True
            for process in alive:
                process.tell(f"stop {stop.signal}")
        if any(process.broken or process.failed for process in ranks):
            last = min(last, now + grace)
        if all(process.ended or process.done for process in ranks):  # what is left has nothing left to do
            last = min(last, now + 6 * grace)
        if now > last:
            for process in alive:
                process.kill()
        time.sleep(POLL)


def abort(ranks: Sequence[Watched]) -> None:
    """Ask for an end at once, and see to it that it comes."""
    for process in ranks:
        process.tell("abort")
    last = time.monotonic() + ABORT
    while time.monotonic() < last and not all(process.ended for process in ranks):
        time.sleep(POLL)


def outcome(ranks: Sequence[Watched], timeout: float) -> Report:
    """What the whole has come to."""
    words = [process.last_words() for process in ranks]
    cause = replace(root_cause(words), run=next((report.run for report in words if report.run), ""))
    silent = [str(process.rank) for process in ranks if process.given_up]
    if cause.kind != "lost" or not silent:
        return cause
    who = f"rank{'s' if len(silent) > 1 else ''} {', '.join(silent)} of {len(ranks)}"
    return Report("died", f"{who} did not answer for {timeout:g} s (devices.timeout)", run=cause.run)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can look into, removed in the end."""
    place = Path(tempfile.mkdtemp(prefix="opd-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
