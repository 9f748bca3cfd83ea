"""Processes of a launch that outlive it: an engine's, of a rank that was killed. Standard library only."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

PROCESSES = Path("/proc")


TRACKER = b"multiprocessing.resource_tracker"
"""What the command of a process says that gives back shared memory, and ends, when the last one is gone that had it."""


def leftovers(setting: str) -> list[int]:
    """Other processes that were started with `NAME=VALUE` in their environment, and do not end with those that are.

    None where the system has no /proc.
    """
    found = []
    for environment in PROCESSES.glob("[0-9]*/environ"):
        with suppress(OSError):  # somebody else's, or gone
            if setting.encode() not in environment.read_bytes().split(b"\0"):
                continue
            if TRACKER not in environment.with_name("cmdline").read_bytes():
                found.append(int(environment.parent.name))
    return [process for process in found if process != os.getpid()]


def sweep(setting: str) -> None:
    """Kill them; one that is stopped too."""
    for process in leftovers(setting):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
