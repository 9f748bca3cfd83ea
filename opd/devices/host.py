"""The one who starts a rank on a machine of a cluster, and is asked from elsewhere how it is. Standard library only.

It is a small process between the launcher and the rank, which is the same as on one machine: where this one ends, for
whatever reason, the rank's lifeline closes, and the rank ends too.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opd.devices.gpus import count_gpus, see_one_gpu
from opd.devices.process import LOOPBACK, Process, begin
from opd.devices.reaper import Reaper
from opd.devices.report import Report, read_report

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
    gpus: int = 0
    """Of this machine that are its own, and its engines'."""


@dataclass(frozen=True)
class Seen:
    """What there is to say of a rank."""

    ended: bool
    said: Report | None
    words: Report | None = None
    """Its last ones, where it has ended."""
    run: str = ""
    """The folder of what it computes, where it has come so far."""
    printed: tuple[bytes, bytes] = (b"", b"")
    """What the first rank has written to stdout and stderr, from where it was asked for; whole lines while it runs."""


class Host:
    """Starts one rank."""

    def __init__(self) -> None:
        self._rank: Process | None = None
        self._last: Seen | None = None
        self._reaper: Reaper | None = None
        self._order = ""

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
        if 1 < asked.gpus == count_gpus():  # else Ray was told to let everybody see all, and ranks take theirs
            see_one_gpu(0, 1)
        around = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        around.pop("OMP_NUM_THREADS", None)  # Ray sets it, by what was reserved
        if name := interface(asked.address) if asked.address else LOOPBACK:
            around = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name} | around
        try:
            os.chdir(asked.folder)
        except OSError as error:
            why = f"devices=ray: {asked.folder}: {error.strerror}{asked.where}; start it in a folder that all nodes see"
            mistake = Report("mistake", why)
            self._last = Seen(ended=True, said=mistake, words=mistake)
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # Ray's processes are deaf to it
        around |= asked.environment
        place = Path(tempfile.mkdtemp(prefix="opd-"))
        self._reaper = Reaper(str(place), around)
        (order := place / "order.json").write_text(asked.text, encoding="utf-8")
        command = [sys.executable, *asked.command[1:]]  # of this machine
        rank = begin(command, order, asked.rank, asked.size, asked.told, around)
        self._rank = replace(rank, where=asked.where)

    def look(self, read: tuple[int, int], order: str) -> Seen:
        """How it is; waits a moment for news.

        Args:
            read: how much of what the first one has printed is known: bytes of stdout, of stderr.
            order: passed on to it, if it is another than the last one; empty: none.
        """
        if order != self._order and self._rank is not None:
            self._rank.tell(order)
        self._order = order
        last = time.monotonic() + WAIT
        while not ((seen := self._seen(read)).ended or any(seen.printed)) and time.monotonic() < last:
            time.sleep(LOOK)
        if seen.ended:
            self._clear(seen)
        return seen

    def end(self, read: tuple[int, int]) -> Seen:
        """Kill it, if it has not ended."""
        if self._rank is not None:
            self._rank.kill()
        seen = self._seen(read)
        self._clear(seen)
        return seen

    def _seen(self, read: tuple[int, int]) -> Seen:
        if self._last is not None or self._rank is None:
            return self._last or Seen(ended=True, said=None)
        ended = self._rank.ended  # before its words are read, which are all there then
        words = self._rank.last_words() if ended else None
        begun = read_report(self._rank.place / f"rank-{self._rank.rank}.json")
        return Seen(ended, self._rank.said, words, begun.run if begun else "", self._printed(read, ended))

    def _printed(self, read: tuple[int, int], ended: bool) -> tuple[bytes, bytes]:
        if self._rank is None or self._rank.rank:
            return b"", b""
        out, err = (
            (self._rank.place / f"rank-0.{name}").read_bytes()[at:]
            for name, at in zip(("out", "err"), read, strict=True)
        )
        return (out, err) if ended else (out[: out.rfind(b"\n") + 1], err[: err.rfind(b"\n") + 1])

    def _clear(self, seen: Seen) -> None:
        self._last = seen  # should it not arrive, it is asked for again
        if self._rank is not None:
            self._rank.kill()  # it has ended, but its pipe is open
        if self._reaper is not None:
            self._reaper.close()  # removes the folder, too


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
