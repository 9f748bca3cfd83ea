"""One process on one device, which all parts of a run share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opd.devices.team import Solo, Team


@dataclass(frozen=True)
class One:
    """Settings of a run in one process: there are none."""

    @contextmanager
    def join(self) -> Iterator[Team]:
        """Nobody else is there."""
        yield Solo()
