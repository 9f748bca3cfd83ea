"""This machine as a card: what it is known to be, or what is measured of it now."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace

import torch

from opd.devices.compute import speed
from opd.devices.threads import threads
from opd.plan.cards import CARDS, Card
from opd.types import UserError

MEGABYTES = 64
"""Size of the tensor that is copied: more than caches hold for one core."""
TRIES = 5
SMALL = 64
"""Numbers of a tensor that is too small to be anything but overhead."""


def here(count: int | None = None) -> Card:
    """The GPU that torch sees, as its name says; without one, the processor as measured with `count` threads.

    Raises:
        UserError: There is a GPU that is not in the table.
    """
    if not torch.cuda.is_available():
        return processor(count)
    name, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    words = re.split(r"[\s-]+", name.lower())
    alike = [card for card in CARDS.values() if card.name.split("-")[0] in words]
    if not alike:
        raise UserError(f"--gpu: {name} is not in the table; name the nearest of {', '.join(CARDS)}")
    return replace(min(alike, key=lambda card: abs(card.memory - memory)), memory=memory)


def machine() -> Card:
    """The GPU that torch sees, or the processor, as far as its memory goes: nothing is measured, no rate is known."""
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return Card(torch.cuda.get_device_name(0), memory, 0.0, 0.0, 0.0, 0.0)
    return Card("cpu", pages(), 0.0, 0.0, 0.0, 0.0)


def pages() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def processor(count: int | None = None) -> Card:
    """Measure peak products, a copy, and a small operation: half a second or so."""
    with threads(count):
        float32, bfloat16 = (speed(dtype, torch.device("cpu")) * 1e9 for dtype in ("float32", "bfloat16"))
        return Card(
            "cpu", pages(), bfloat16, float32, bandwidth(), link=bandwidth(), launch=launch(), source="measured now"
        )


def bandwidth() -> float:
    """Bytes a second, read and written, of copying a large tensor; the best of several tries."""
    source = torch.ones(MEGABYTES * 2**20 // 4)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(TRIES):
        begun = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - begun)
    return 2 * source.numel() * source.element_size() / best


def launch() -> float:
    """Seconds of adding two tensors that hold next to nothing."""
    a, b, best = torch.ones(SMALL), torch.ones(SMALL), float("inf")
    for _ in range(TRIES):
        begun = time.perf_counter()
        for _ in range(200):
            a + b
        best = min(best, (time.perf_counter() - begun) / 200)
    return best
