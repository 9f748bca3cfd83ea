"""Ranks, and engines in processes of their own, which the first rank starts on its machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from opd.devices.engines import EngineProcesses
from opd.devices.gpus import count_gpus
from opd.devices.launched import first_here
from opd.devices.ranks import Ranks
from opd.devices.team import Solo, Team

LONGER = 3
"""Times that ranks wait for the first one as long as that waits for an engine: it is to have another one meanwhile."""


@dataclass(frozen=True)
class Beside(Ranks):
    """Settings of both."""

    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds without an answer after which an engine is taken for dead, or where there are none, a rank: more than the
    longest phase of a step."""
    engines: Annotated[int, Field(ge=0, le=4096)] = 0
    """Processes, each with a whole engine, on the first rank's machine. What they write does not depend on how many
    they are. 0: every rank has an engine of its own, in its process."""
    ahead: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps that they write ahead: rollouts are by so many pushes older than the learner. 0: all wait for each other,
    as in one process."""
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """Torch threads of each, on the CPU."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that the model of each engine is on, with a part of every layer on each: for one that is too large, or too
    slow, on one. rollout=vllm can. It has to divide the model's attention heads and vocabulary: 2, 4 or 8, mostly."""
    restarts: Annotated[int, Field(ge=0)] = 1
    """Times that an engine that fails or dies is started again for one request, with the newest weights; 0: the run
    ends."""

    def __post_init__(self) -> None:
        """Refuse to write ahead where it is the learners who write, and groups that so many ranks cannot make."""
        super().__post_init__()
        if self.ahead and not self.engines:
            raise ValueError(
                f"ahead={self.ahead}: with engines=0 every rank has an engine of its own, and either writes or learns; "
                "allowed is 0, or give engines processes of their own, as in devices.engines=1"
            )
        if self.tensor_parallel > 1 and not self.engines:
            raise ValueError(
                f"tensor_parallel={self.tensor_parallel}: with engines=0 every rank has an engine of its own, on its "
                "GPU; allowed is 1, or give engines processes of their own, as in devices.engines=1"
            )

    @property
    def count(self) -> int:
        """As many as engines leave GPUs for."""
        return self.ranks or max(0, count_gpus() - self.engines_gpus)

    @property
    def engines_gpus(self) -> int:
        """GPUs that all engines take."""
        return self.engines * self.tensor_parallel

    @property
    def sharing(self) -> int:
        """Engines that write ahead work while the learner does."""
        return self.neighbours + (self.engines_gpus if self.ahead and first_here() else 0)

    @property
    def patience(self) -> float:
        """An engine that does not answer is replaced meanwhile."""
        return self.timeout * (LONGER if self.engines else 1)

    @property
    def apart(self) -> EngineProcesses | None:
        """As many as are set."""
        if not self.engines:
            return None
        return EngineProcesses(self.engines, self.threads, self.timeout, self.restarts, self.tensor_parallel)

    def writers(self, team: Team) -> Team | None:
        """The first rank for itself; where there is one, or each has its own engine, that is all."""
        if team.size == 1 or not self.engines:
            return team
        return None if team.rank else Solo()
