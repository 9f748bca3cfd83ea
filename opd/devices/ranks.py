"""Several equal processes, each with a shard of student and teacher and an engine of its own (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field

from opd.devices.gpus import count_gpus, see_one_gpu
from opd.devices.launch import Job, launch
from opd.devices.launched import HERE, HERE_OF, RANK, SIZE, meeting, number, started
from opd.devices.team import LostRank
from opd.types import UserError

if TYPE_CHECKING:
    from opd.devices.engines import EngineProcesses
    from opd.devices.team import Team

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Settings of a run on several processes; under `torchrun` those that it starts are taken."""

    ranks: Annotated[int, Field(ge=1, le=4096)] | None = None
    """How many; null: one for every GPU of this machine, or as many as the launcher that started this process says."""
    shard: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Ranks, neighbours, that have one copy of the weights among them; null: all. 1: each has a copy of its own, which
    takes the most memory and the least exchange."""
    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds that one waits for the others before it gives up: more than the longest phase of a step."""

    def __post_init__(self) -> None:
        """Refuse groups that so many ranks cannot make."""
        if self.ranks is not None:
            copies(self.ranks, self.shard)

    @property
    def count(self) -> int:
        """How many this machine would start; 0: that is not known, as it has no GPU."""
        return self.ranks or count_gpus()

    @property
    def neighbours(self) -> int:
        """How many of them are on this machine."""
        return number(HERE_OF) or number(SIZE) or self.count or 1

    @property
    def sharing(self) -> int:
        """How many of them share this machine's cores."""
        return self.neighbours

    @property
    def patience(self) -> float:
        """Seconds that one waits for the others."""
        return self.timeout

    @property
    def ahead(self) -> int:
        """All generate, then all learn."""
        return 0

    @property
    def revives(self) -> int:
        """The others would wait for one whose engine starts again, or take part in handing it the weights."""
        return 0

    @property
    def apart(self) -> EngineProcesses | None:
        """Each has its engine in its own process."""
        return None

    def writers(self, team: Team) -> Team | None:
        """All."""
        return team

    def start(self, job: Job) -> Any:
        """Start as many processes, which all carry the job out; where this one is a rank, it does its part."""
        if started():
            return job.here()
        count = self.count
        if not count:
            raise UserError("devices.ranks=null: there is no GPU here; give their number, as in devices.ranks=2")
        return launch(job, count, self.patience)

    @contextmanager
    def join(self) -> Iterator[Team]:
        """Meet the others; UserError where they are not as many as the settings say."""
        from datetime import timedelta

        import torch
        import torch.distributed as dist
        from torch.distributed.device_mesh import init_device_mesh

        rank, size = number(RANK) or 0, number(SIZE) or 1
        if self.ranks not in (None, size):
            raise UserError(f"devices.ranks={self.ranks}: {size} were started (WORLD_SIZE); allowed is {size}, or null")
        shape, at = copies(size, self.shard), meeting()
        here = number(HERE)
        see_one_gpu(rank if here is None else here, self.neighbours)
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(0)  # or torch would take the one of this rank's number, of which it sees none
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo", init_method=at,
                rank=rank, world_size=size, timeout=timedelta(seconds=self.patience),
            )  # fmt: skip
        except RuntimeError as error:
            raise LostRank(
                f"rank {rank} of {size}: not all have met within devices.timeout={self.timeout:g} s: "
                f"{str(error).splitlines()[0]}"
            ) from error
        names = ("copies", "shards")[-len(shape) :]
        yield Group(rank, size, init_device_mesh("cuda" if cuda else "cpu", shape, mesh_dim_names=names))
        dist.destroy_process_group()  # after an error it would wait for those that are in the middle of something


def copies(size: int, shard: int | None) -> tuple[int, ...]:
    """The mesh of `size` ranks: copies of the weights (where there are several) by the shards of each."""
    shard = shard or size
    if size % shard:
        allowed = ", ".join(str(n) for n in range(1, size + 1) if size % n == 0)
        raise UserError(f"devices.shard={shard}: {size} ranks are no groups of {shard}; allowed are {allowed}, or null")
    return (size,) if shard == size else (size // shard, shard)


@dataclass(frozen=True)
class Group:
    """Processes that torch has made a group of."""

    rank: int
    size: int
    mesh: Any

    def gather(self, value: T) -> list[T]:
        """The value of each; RunError where one does not answer."""
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(found, value)
        except RuntimeError as error:  # one has ended, or was waited for too long
            raise LostRank(
                f"rank {self.rank} of {self.size} lost another rank: {str(error).splitlines()[0]}"
            ) from error
        return found
