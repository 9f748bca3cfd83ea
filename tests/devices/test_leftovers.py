"""What is left of a launch is ended, and what it held is given back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from opd.devices.leftovers import leftovers, sweep

HOLDER = """
import time
from multiprocessing.shared_memory import SharedMemory
held = SharedMemory(create=True, size=64)
print(held.name, flush=True)
time.sleep(600)
"""
SHARED = Path("/dev/shm")


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared memory is no files here")
def test_processes_that_are_swept_leave_no_shared_memory_behind() -> None:
    setting = f"OPD_OF_A_TEST={uuid4().hex}"
    name, _, value = setting.partition("=")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=os.environ | {name: value}, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        held = SHARED / child.stdout.readline().strip()
        assert held.exists()
        assert leftovers(setting) == [child.pid]
        sweep(setting)
    last = time.monotonic() + 10
    while held.exists() and time.monotonic() < last:
        time.sleep(0.05)
    assert not held.exists()
