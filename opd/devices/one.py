"""One process on one device, which all parts of a run share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from opd.devices.launch import Job
from opd.devices.launched import refuse_several
from opd.devices.team import Solo, Team

if TYPE_CHECKING:
    from opd.devices.engines import EngineProcesses


@dataclass(frozen=True)
class One:
    """Settings of a run in one process."""

    ahead: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps that rollouts are written ahead, in turn with the learner: no faster, but what `devices=apart` with as many
    would learn, before there is a second device for it. 0: each step learns from what its own weights wrote."""
    restarts: Annotated[int, Field(ge=0)] = 1
    """Times that an engine that fails is started again for one request, with the newest weights; 0: the run ends."""

    @property
    def sharing(self) -> int:
        """It has the machine's cores for itself."""
        return 1

    @property
    def revives(self) -> int:
        """As often as is set."""
        return self.restarts

    @property
    def apart(self) -> EngineProcesses | None:
        """The engine is in this process."""
        return None

    def writers(self, team: Team) -> Team | None:
        """All."""
        return team

    def start(self, job: Job) -> Any:
        """Carry the job out."""
        refuse_several("devices=one", "add devices=ranks")
        return job.here()

    @contextmanager
    def join(self) -> Iterator[Team]:
        """Nobody else is there."""
        yield Solo()
