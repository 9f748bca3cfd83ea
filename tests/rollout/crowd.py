"""Ranks as threads of one process, for what they ask each other: a team without torch."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from opd.devices.team import Team

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds after which one that waits for the others has waited in vain."""


@dataclass(frozen=True)
class Member:
    """A rank of a crowd; what it gathers has been pickled, as between processes."""

    rank: int
    size: int
    met: threading.Barrier
    table: list[bytes]
    mesh: Any = None

    def gather(self, value: T) -> list[T]:
        self.table[self.rank] = pickle.dumps(value)
        self.met.wait(PATIENCE)
        found = [pickle.loads(sent) for sent in self.table]
        self.met.wait(PATIENCE)
        return found


def crowd(size: int, work: Callable[[Team], T]) -> list[T | Exception]:
    """What `work` returns or raises on each rank, by rank."""
    met, table = threading.Barrier(size), [b""] * size

    def one(rank: int) -> T | Exception:
        try:
            return work(Member(rank, size, met, table))
        except Exception as error:  # goes to the test
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
