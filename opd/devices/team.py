"""Who computes a run: this process alone, or several that take the same steps, each with its share of the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, TypeVar

from opd.devices.shortage import shortage
from opd.types import RunError, UserError

T = TypeVar("T")


class Team(Protocol):
    """Equal processes. What one of these methods is called for, it is called for on all, in the same order."""

    @property
    def rank(self) -> int:
        """Which of them this one is, from 0; that one writes files and talks."""
        ...

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    @property
    def mesh(self) -> Any:
        """The torch `DeviceMesh` that models are sharded over; None: they are whole."""
        ...

    def gather(self, value: T) -> list[T]:
        """The value of each, by rank."""
        ...


@dataclass(frozen=True)
class Solo:
    """One process, which has nobody to ask."""

    rank: int = 0
    size: int = 1
    mesh: Any = None

    def gather(self, value: T) -> list[T]:
        """Its own."""
        return [value]


def each_rank(team: Team, work: Callable[[], T]) -> list[T]:
    """What each rank makes, by rank; the error of one is raised on all, so that none waits for it.

    For work that a rank does by itself: in the middle of work that gathers something the others could not be told.
    """
    if team.size == 1:
        return [work()]
    mine: T | Exception
    try:
        mine = work()
    except Exception as error:  # of whatever kind: all ranks have to hear of it
        known = isinstance(error, UserError | RunError)
        mine = shortage(error) or (error if known else Failed.of(error, team.rank))
        mine.__cause__ = None if mine is error else error
    found = team.gather(mine)
    for rank, other in enumerate(found):
        if isinstance(other, Exception):
            raise mine if rank == team.rank and isinstance(mine, Exception) else other
    return [value for value in found if not isinstance(value, Exception)]


def first_rank(team: Team, work: Callable[[], T]) -> T:
    """What rank 0 makes, on all ranks; the others do nothing meanwhile."""
    (made,) = chain(*each_rank(team, lambda: [work()] if team.rank == 0 else []))
    return made


def spread(team: Team, items: Sequence[Any], work: Callable[[Sequence[Any]], Sequence[T]]) -> list[T]:
    """What `work` makes of each item, in their order, each rank doing its part of them; neighbours stay together."""
    begin, end = (len(items) * k // team.size for k in (team.rank, team.rank + 1))
    return [made for part in each_rank(team, lambda: list(work(items[begin:end]))) for made in part]


class LostRank(RunError):
    """Another rank does not answer, as it has ended or hangs."""


class Failed(Exception):
    """An unforeseen error of some rank."""

    @classmethod
    def of(cls, error: Exception, rank: int) -> Failed:
        """In words, as not every exception can be sent."""
        return cls(f"{type(error).__name__} on rank {rank}: {error}")
