"""Seconds and peak memory of one call."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

MIB = 2**20


def timed(call: Callable[[], object]) -> float:
    """Seconds that `call` takes, the GPU's included."""
    _synchronize()
    start = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - start


def peak_growth(call: Callable[[], object]) -> float:
    """MiB by which `call` raises memory above what is in use before it, at its highest."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    # Freed memory that the allocator keeps would hide part of the growth.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _resident_growth(call)


def _resident_growth(call: Callable[[], object]) -> float:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's own high-water mark starts anew
    except OSError:
        return _sampled_growth(call)
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 1024


def _sampled_growth(call: Callable[[], object]) -> float:
    """Look every two milliseconds, where the high-water mark cannot be reset."""
    before = peak = _status("VmRSS")
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _status("VmRSS"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return (max(peak, _status("VmRSS")) - before) / 1024


def _status(key: str) -> int:
    """A line of this process's status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
