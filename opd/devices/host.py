"""The one who starts a rank on a machine of a cluster, and is asked from elsewhere how it is. Standard library only.

It is a small process between the launcher and the rank, which is the same as on one machine: where this one ends, for
whatever reason, the rank's lifeline closes, and the rank ends too.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opd.devices.leftovers import sweep
from opd.devices.lifeline import LAUNCH
from opd.devices.process import LOOPBACK, Process, begin
from opd.devices.report import Report

PORTS = range(20000, 32768)
"""Where ranks meet: below what systems give to connections, and above what Ray gives to its processes."""
WAIT, LOOK = 0.25, 0.02
"""Seconds that an answer waits for news, and between looks."""


@dataclass(frozen=True)
class Asked:
    """What a host is to start."""

    command: Sequence[str]
    text: str
    """The order."""
    rank: int
    size: int
    where: str
    """Behind the rank's name: the machine."""
    folder: str
    """Where the launcher stands, for paths that are relative to it."""
    told: Mapping[str, str]
    """Variables that say where the others are."""
    address: str
    """This machine's, by which the others reach it; empty: all are on this one."""
    environment: Mapping[str, str]
    """Variables of the launcher that go with it."""


@dataclass(frozen=True)
class Seen:
    """What there is to say of a rank."""

    ended: bool
    said: Report | None
    words: Report | None = None
    """Its last ones, where it has ended."""
    printed: tuple[str, str] = ("", "")
    """What the first rank has written to stdout and stderr since it was asked last."""


class Host:
    """Starts one rank."""

    def __init__(self) -> None:
        self._rank: Process | None = None
        self._mistake: Report | None = None
        self._read = [0, 0]
        self._place = Path(tempfile.mkdtemp(prefix="opd-"))

    def port(self) -> int:
        """One that nobody listens at."""
        for port in random.SystemRandom().sample(PORTS, 100):
            with socket.socket() as tried:
                try:
                    tried.bind(("", port))
                except OSError:
                    continue
                return port
        raise OSError(f"no free port among {PORTS}")

    def begin(self, asked: Asked) -> None:
        """Start it; what keeps it from starting is its report."""
        (order := self._place / "order.json").write_text(asked.text, encoding="utf-8")
        around = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        around.pop("OMP_NUM_THREADS", None)  # Ray sets it, by what was reserved
        if name := interface(asked.address) if asked.address else LOOPBACK:
            around = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name} | around
        try:
            os.chdir(asked.folder)
        except OSError as error:
            self._mistake = Report(
                "mistake", f"devices=ray: {asked.folder}: {error.strerror}{asked.where}; "
                "start it in a folder that all nodes see, where the runs are to lie",
            )  # fmt: skip
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # Ray's processes are deaf to it
        command = [sys.executable, *asked.command[1:]]  # of this machine
        rank = begin(command, order, asked.rank, asked.size, asked.told, around | dict(asked.environment))
        self._rank = replace(rank, where=asked.where)

    def look(self) -> Seen:
        """How it is; waits a moment for news."""
        last = time.monotonic() + WAIT
        while (seen := self._seen()) and not (seen.ended or any(seen.printed)) and time.monotonic() < last:
            time.sleep(LOOK)
        if seen.ended:
            self._clear()
        return seen

    def tell(self, order: str) -> None:
        """Pass an order on."""
        if self._rank is not None:
            self._rank.tell(order)

    def end(self) -> Seen:
        """Kill it, if it has not ended."""
        if self._rank is not None:
            self._rank.kill()
        seen = self._seen()
        self._clear()
        return seen

    def _seen(self) -> Seen:
        if self._mistake is not None or self._rank is None:
            return Seen(ended=True, said=self._mistake, words=self._mistake)
        ended = self._rank.ended  # before its words are read, which are all there then
        words = self._rank.last_words() if ended else None
        return Seen(ended, self._rank.said, words, self._printed() if self._rank.rank == 0 else ("", ""))

    def _printed(self) -> tuple[str, str]:
        out, err = (self._news(i, name) for i, name in enumerate(("rank-0.out", "rank-0.err")))
        return out, err

    def _news(self, which: int, name: str) -> str:
        with (self._place / name).open("rb") as file:
            file.seek(self._read[which])
            news = file.read()
        whole = news if self._rank is not None and self._rank.ended else news[: news.rfind(b"\n") + 1]
        self._read[which] += len(whole)
        return whole.decode("utf-8", "replace")

    def _clear(self) -> None:
        sweep(f"{LAUNCH}={self._place}")
        if self._rank is not None:
            self._rank.kill()
        shutil.rmtree(self._place, ignore_errors=True)


def interface(address: str) -> str:
    """The name of this machine's network interface that has an IPv4 address; empty where none is known to."""
    if sys.platform != "linux":
        return ""
    import fcntl

    siocgifaddr = 0x8915
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, siocgifaddr, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
