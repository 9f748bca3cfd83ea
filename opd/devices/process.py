"""A rank as its launcher sees it. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from opd import children
from opd.devices.lifeline import LAUNCH, LIFELINE, STORE
from opd.devices.report import Report, read_report
from opd.devices.watched import Watched

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that say nothing of the process which they end; what it has printed does not explain them either."""
TAIL = 20
"""Lines of a dead rank's output that are shown."""


@dataclass
class Process(Watched):
    """A process that was started, and the launcher's end of the pipe to it."""

    popen: subprocess.Popen[bytes]
    rank: int
    size: int
    place: Path
    pipe: int
    where: str = ""
    """Put behind its name, where that does not say enough."""
    given_up: bool = False
    seen: float = 0.0
    """When it was found to have ended, in seconds since 1970."""

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        gone = self.popen.poll() is not None
        if gone and not self.seen:
            self.seen = time.time()
        return gone

    @property
    def said(self) -> Report | None:
        """Its report, but for one that it has begun."""
        report = read_report(self.place / f"rank-{self.rank}.json")
        return None if report is None or report.kind == "begun" else report

    def tell(self, order: str) -> None:
        """Send it an order, if it still listens."""
        with suppress(BrokenPipeError):
            os.write(self.pipe, f"{order}\n".encode())

    def kill(self) -> None:
        """End it, if it has not ended; closes the pipe."""
        if not self.ended:
            self.given_up = True
            self.popen.kill()
            self.popen.wait()
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1

    def last_words(self) -> Report:
        """What it has said, or what there is to say of it."""
        if self.said is not None:
            return self.said
        begun = read_report(self.place / f"rank-{self.rank}.json") or Report("begun")
        if self.given_up:
            return replace(begun, kind="lost", at=self.seen)
        code, who = self.popen.returncode, f"rank {self.rank} of {self.size}{self.where}"
        told = (
            f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}, unexplained"
        )
        trace = "" if -code in FROM_OUTSIDE else self._tail()
        return replace(begun, kind="died", message=f"{who} {told}", trace=trace, at=self.seen)

    def _tail(self) -> str:
        with suppress(FileNotFoundError):  # rank 0 prints where the launcher does
            lines = (self.place / f"rank-{self.rank}.log").read_text("utf-8", "replace").splitlines()
            return "\n".join(f"rank {self.rank}: {line}" for line in lines[-TAIL:])
        return ""


def begin(
    command: Sequence[str], order: Path, rank: int, size: int, told: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Process:  # fmt: skip
    """Start a rank that does what a file orders.

    Args:
        command: what the file's name is put behind.
        order: the file, in a folder of this launch.
        rank: which of them it is.
        size: how many they are.
        told: variables that say where the others are; None: all are on this machine, and find each other by a file.
            With them it is in a session of its own: what ends this process's group leaves it to its lifeline.
            The first one then prints where this process does; with `told` into `rank-0.out` and `rank-0.err` beside
            the order. Others print into `rank-N.log`.
        environment: what it is started with beside these; None: this process's.
    """
    place = order.parent
    theirs, ours = os.pipe()
    own: dict[str, object] = {"RANK": rank, "WORLD_SIZE": size, LIFELINE: theirs, LAUNCH: place}
    around = children.environment(environment)
    if told is None:
        own |= {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, STORE: store(place)}
        around = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK} | around  # nobody else is to connect
    around |= {name: str(value) for name, value in own.items()} | dict(told or {})
    try:
        with ExitStack() as files:
            log = files.enter_context((place / f"rank-{rank}.log").open("wb")) if rank else None
            out, err = log, log
            if told and not rank:
                out, err = (files.enter_context((place / f"rank-0.{name}").open("wb")) for name in ("out", "err"))
            popen = subprocess.Popen(
                [*command, str(order)], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=around,
                pass_fds=(theirs,), start_new_session=told is not None,
            )  # fmt: skip
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return Process(popen, rank, size, place, ours)


def store(place: Path) -> str:
    """Where ranks find each other, as an address that torch understands."""
    return f"file://{place / 'store'}"
