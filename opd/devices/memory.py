"""Memory that was freed is kept for what comes next.

glibc takes every large block from the system and gives it back at once, and the system fills each page with zeros
before it is handed out again: an eighth of the time of a training step on a CPU, and more where processes share the
machine, as it is the memory's bandwidth that they wait for. Between blocks of many sizes there are holes: a process
ends up with a fifth more than its fullest phase needs (SmolLM2: 5.3 GiB, where 4.4 were in use at once).
"""

from __future__ import annotations

import ctypes
import functools
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Settings of mallopt(3): free bytes at the heap's end that go back; blocks that the system is asked for."""
NEVER = 2**31 - 1


@functools.cache
def keep_freed() -> bool:
    """Have this process keep what it frees; whether its C library can. Nothing for a host that feeds a GPU."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, NEVER))
