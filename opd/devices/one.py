"""One process on one device, which all parts of a run share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from opd.devices.launch import Job
from opd.devices.team import Solo, Team, refuse_several

E = TypeVar("E")


@dataclass(frozen=True)
class One:
    """Settings of a run in one process: there are none."""

    @property
    def sharing(self) -> int:
        """It has the machine's cores for itself."""
        return 1

    @property
    def ahead(self) -> int:
        """Engine and learner take turns."""
        return 0

    def engine(self, settings: E) -> E:
        """The engine is in this process."""
        return settings

    def start(self, job: Job) -> Any:
        """Carry the job out."""
        refuse_several("one")
        return job.here()

    @contextmanager
    def join(self) -> Iterator[Team]:
        """Nobody else is there."""
        yield Solo()
