"""One rank of several, whose others do not exist: what it allocates is real, what it would be sent is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from opd.devices.ranks import Group, copies
from opd.devices.team import Solo, Team

T = TypeVar("T")


class Alone(Group):
    """It takes the others to have what it has itself."""

    def gather(self, value: T) -> list[T]:
        return [value] * self.size


@contextmanager
def group(rank: int, size: int, shard: int | None = None) -> Iterator[Team]:
    """The process group of rank `rank`; that of one rank is none."""
    if size == 1:
        yield Solo()
        return
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    try:
        shape = copies(size, shard)
        names = ("copies", "shards")[-len(shape) :]
        yield Alone(rank, size, init_device_mesh("cpu", shape, mesh_dim_names=names))
    finally:
        dist.destroy_process_group()
