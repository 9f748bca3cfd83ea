"""`python -m opd.devices.reaper FOLDER`: clears up a folder and what belongs to it, when whoever began that is gone.

Two things would stay otherwise. Ray's agents can outlive its other processes for minutes; what they were started with
cannot be read, as they give themselves names, but the log files of their cluster stay open. And a worker of Ray's that
ends kills the rank that it has started before that could end an engine's processes. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from opd import children
from opd.devices.leftovers import PROCESSES, sweep
from opd.devices.lifeline import LAUNCH

BY_THEMSELVES = 5.0
"""Seconds that they get to end."""
NAMES = (b"ray::", b"/ray/")
"""What the command lines of Ray's processes hold."""


class Reaper:
    """This process's end of the pipe to it, which the system closes where nobody else does."""

    def __init__(self, folder: str, environment: Mapping[str, str] | None = None) -> None:
        """Start it, for what has files of `folder` open, or OPD_LAUNCH=`folder` in its environment."""
        self._process = subprocess.Popen(
            children.command("opd.devices.reaper", folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=children.environment(environment), start_new_session=True,
        )  # fmt: skip

    def close(self) -> None:
        """Have it clear up, and wait for it."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.communicate()  # until its stdout is closed


def of_ray(folder: str) -> list[int]:
    """Processes of a cluster in a folder; none where the system has no /proc."""
    found = set()
    for file in PROCESSES.glob("[0-9]*/fd/*"):
        with suppress(OSError):  # somebody else's, or gone
            if os.readlink(file).startswith(f"{folder}/"):
                found.add(file.parent.parent)
    spared = (os.getpid(), os.getppid())
    pids = []
    for process in found:
        with suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if int(process.name) not in spared and any(name in words for name in NAMES):
                pids.append(int(process.name))
    return pids


def end(folder: str, seconds: float) -> None:
    """Kill those that have not ended by themselves within some seconds."""
    last = time.monotonic() + seconds
    while (left := of_ray(folder)) and time.monotonic() < last:
        time.sleep(0.1)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def main() -> None:
    """Wait until nobody holds the other end of stdin."""
    if os.fork():  # Ray's workers kill their children
        os._exit(0)
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.read()
    end(sys.argv[1], BY_THEMSELVES)
    sweep(f"{LAUNCH}={sys.argv[1]}")
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
