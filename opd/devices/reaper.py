"""`python -m opd.devices.reaper FOLDER`: ends what is left of Ray in a folder, when whoever began it is gone.

Ray's agents can outlive it for minutes. What they were started with cannot be read any more, as they give themselves
names, but the log files of their cluster stay open. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from opd.devices.leftovers import PROCESSES

BY_THEMSELVES = 5.0
"""Seconds that they get to end."""
NAMES = (b"ray::", b"/ray/")
"""What the command lines of Ray's processes hold."""


@contextmanager
def reaper(folder: str) -> Iterator[None]:
    """A cluster in a folder of its own ends with this process, or after the block, and the folder is removed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "opd.devices.reaper", folder], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        process.communicate()  # closes its stdin


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
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.read()
    end(sys.argv[1], BY_THEMSELVES)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
