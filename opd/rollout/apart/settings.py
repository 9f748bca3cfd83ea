"""One learner or several, and engines in processes of their own, which may write steps ahead of the learner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from opd.devices.beside import Beside
from opd.devices.gpus import count_gpus, refuse_fewer_gpus
from opd.devices.launch import Job
from opd.devices.launched import first_here, refuse_several, started
from opd.devices.team import Solo, Team
from opd.types import UserError


@dataclass(frozen=True)
class Apart(Beside):
    """Settings of a run whose engines are apart; on GPUs each gets one of its own, where there are enough."""

    ranks: Annotated[int, Field(ge=1, le=4096)] | None = 1
    """Processes that learn, each with a shard of student and teacher (`devices=ranks`); the first one has the engines.
    null: one for every GPU that these leave, or as many as the launcher that started this process says."""
    engines: Annotated[int, Field(ge=1, le=4096)] = 1
    """Processes, each with a whole engine. What they write does not depend on how many they are."""

    def start(self, job: Job) -> Any:
        """Carry the job out, in this process where one learns, else in as many as there are ranks."""
        if self.ranks == 1:
            refuse_several("devices=apart", "add devices.ranks=null")
            if 0 < (gpus := count_gpus()) < self.tensor_parallel:
                raise UserError(
                    f"devices.tensor_parallel={self.tensor_parallel}: {gpus} GPUs can be seen here "
                    f"(CUDA_VISIBLE_DEVICES); allowed is at most {gpus}"
                )
            return job.here()
        if not started():
            refuse_fewer_gpus(count_gpus(), self.count or 1, self.engines, self.tensor_parallel)
        return super().start(job)

    @contextmanager
    def join(self) -> Iterator[Team]:
        """Meet the others that learn; the engines are started with the other parts."""
        if self.ranks == 1:
            yield Solo()
            return
        if first_here():  # on the first one's machine
            refuse_fewer_gpus(count_gpus(), self.neighbours, self.engines, self.tensor_parallel)
        with super().join() as team:
            yield team
