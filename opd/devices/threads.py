"""How many threads torch gets: as many as there are idle cores when a run begins.

Threads of one parallel region wait for each other. Where one of them has to share its core with another program, all
wait for that one at every region: two threads beside one busy program were 6 times slower than one thread.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opd.devices.memory import keep_freed

STAT = Path("/proc/stat")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Cores that this process may use: of those that it is bound to, as many as its container is allowed."""
    bound = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(bound, math.floor(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or `max`: no limit
        return bound


def idle_cores(seconds: float = 0.2) -> int:
    """How many of the cores other programs leave alone, at least 1; looks on for `seconds`."""
    before = _busy()
    if not before:
        return cores()
    begun, own = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    passed, own = time.perf_counter() - begun, time.process_time() - own
    after = _busy()
    taken = (sum(after[core] - before[core] for core in before) - own) / passed
    return max(1, min(cores(), round(len(before) - taken)))


def pick_threads(threads: int | None, sharing: int = 1) -> int:
    """The number that is given, else OMP_NUM_THREADS, else that of idle cores; never more than there are cores.

    `sharing`: processes that will share the idle cores evenly; each has one thread at least.
    """
    if threads is None:
        given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list is for nested regions
        threads = int(given) if given.isdecimal() else 0
    return min(threads, cores()) if threads else max(1, idle_cores() // sharing)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Give torch `count` threads for a while; None leaves its number alone. On a CPU it keeps what it frees, too."""
    import torch

    if not torch.cuda.is_available():
        keep_freed()
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _busy() -> dict[int, float]:
    """Seconds that each core we are bound to has been busy for; empty where the system does not tell."""
    try:
        lines = [line.split() for line in STAT.read_text().splitlines() if line.startswith("cpu")]
        ticks = os.sysconf("SC_CLK_TCK")
        ours = os.sched_getaffinity(0)
        # user, nice, system, idle, iowait, irq, softirq, steal
        rows = {int(name[3:]): list(map(int, values[:8])) for name, *values in lines if name != "cpu"}
        return {core: (sum(v) - v[3] - v[4]) / ticks for core, v in rows.items() if core in ours}
    except (OSError, ValueError, AttributeError):
        return {}
