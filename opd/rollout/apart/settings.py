"""One learner or several, and engines in processes of their own, which may write steps ahead of the learner."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from opd.devices.gpus import count_gpus, refuse_fewer_gpus
from opd.devices.launch import Job
from opd.devices.ranks import Ranks, copies
from opd.devices.team import Solo, Team, refuse_several, started
from opd.protocols import Engine

LONGER = 3
"""Times that ranks wait for the first one as long as that waits for an engine: it is to have another one meanwhile."""


@dataclass(frozen=True)
class Apart:
    """Settings of a run whose engines are apart; on GPUs each gets one of its own, where there are enough."""

    ranks: Annotated[int, Field(ge=1, le=4096)] | None = 1
    """Processes that learn, each with a shard of student and teacher (`devices=ranks`); the first one has the engines.
    null: one for every GPU that these leave, or as many as the launcher that started this process says."""
    shard: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Ranks, neighbours, that have one copy of the weights among them; null: all."""
    engines: Annotated[int, Field(ge=1, le=4096)] = 1
    """Processes, each with a whole engine. What they write does not depend on how many they are."""
    ahead: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps that they write ahead: rollouts are by so many pushes older than the learner. 0: all wait for each other,
    as in one process."""
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """Torch threads of each, on the CPU."""
    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds without an answer after which an engine is taken for dead: more than the longest phase of a step."""
    restarts: Annotated[int, Field(ge=0)] = 1
    """Times that an engine that fails or dies is started again for one request, with the newest weights; 0: the run
    ends."""

    @property
    def sharing(self) -> int:
        """How many processes share this machine's cores: engines that write ahead work while the learner does."""
        return self._learners.sharing + (self.engines if self.ahead else 0)

    @property
    def revives(self) -> int:
        """Whoever looks after the engines' processes starts others in their place."""
        return 0

    def engine(self, settings: Engine, told: Callable[[str], None]) -> Engine:
        """So many engines, as one."""
        from opd.rollout.apart.fleet import Engines

        return Engines(settings, self.engines, self.threads, self.timeout, self.restarts, told)

    def writers(self, team: Team) -> Team | None:
        """The first rank for itself; where there is one, that is all."""
        if team.size == 1:
            return team
        return None if team.rank else Solo()

    def start(self, job: Job) -> Any:
        """Carry the job out, in this process where one learns, else in as many as there are ranks."""
        if self.ranks == 1:
            refuse_several("apart", "devices.ranks=null")
            copies(1, self.shard)
            return job.here()
        learners = self._learners
        if not started():
            refuse_fewer_gpus(count_gpus(), learners.ranks or 1, self.engines)
        return learners.start(job)

    @contextmanager
    def join(self) -> Iterator[Team]:
        """Meet the others that learn; the engines are started with the other parts."""
        if self.ranks == 1:
            yield Solo()
            return
        learners = self._learners
        if os.environ.get("LOCAL_RANK", "0") == os.environ["RANK"]:  # on the first one's machine
            refuse_fewer_gpus(count_gpus(), learners.sharing, self.engines)
        with learners.join() as team:
            yield team

    @property
    def _learners(self) -> Ranks:
        ranks = self.ranks
        if ranks is None and not started():
            ranks = max(0, count_gpus() - self.engines) or None
        return Ranks(ranks, self.shard, LONGER * self.timeout)
