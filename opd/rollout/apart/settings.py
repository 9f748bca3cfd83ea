"""The run in one process, and its engines in processes of their own, which may write steps ahead of the learner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from opd.devices.launch import Job
from opd.devices.team import Solo, Team, refuse_several
from opd.protocols import Engine


@dataclass(frozen=True)
class Apart:
    """Settings of a run whose engines are apart; on GPUs each gets one of its own, where there are enough."""

    engines: Annotated[int, Field(ge=1)] = 1
    """Processes, each with a whole engine. What they write does not depend on how many they are."""
    ahead: Annotated[int, Field(ge=0)] = 0
    """Steps that they write ahead: rollouts are by so many pushes older than the learner. 0: all wait for each other,
    as in one process."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Torch threads of each, on the CPU."""
    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds without an answer after which an engine is taken for dead: more than the longest phase of a step."""

    @property
    def sharing(self) -> int:
        """How many processes share this machine's cores: engines that write ahead work while the learner does."""
        return 1 + self.engines if self.ahead else 1

    def engine(self, settings: Engine) -> Engine:
        """So many engines, as one."""
        from opd.rollout.apart.fleet import Engines

        return Engines(settings, self.engines, self.threads, self.timeout)

    def start(self, job: Job) -> Any:
        """Carry the job out."""
        refuse_several("apart")
        return job.here()

    @contextmanager
    def join(self) -> Iterator[Team]:
        """There is one learner; the engines are started with the other parts."""
        yield Solo()
