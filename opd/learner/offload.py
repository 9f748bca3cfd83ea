"""Weights and optimizer states in the host's memory while nobody works with them, which leaves the GPU to others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from opd.models.shards import own

BUCKET = 2**28
"""Weights whose optimizer states are on the device at once: 2 GiB of them."""


class Mover(Protocol):
    """Copies between a device and the host's memory."""

    @property
    def device(self) -> torch.device:
        """The device."""
        ...

    def home(self, tensor: Tensor, place: Tensor | None) -> Tensor:
        """A tensor's copy in the host's memory: in `place`, where it has been before; None: a new place."""
        ...

    def there(self, tensor: Tensor) -> Tensor:
        """The copy on the device of one that is at home."""
        ...

    def wait(self) -> None:
        """Return when all copies have arrived."""
        ...


@dataclass(frozen=True)
class Pinned:
    """Pages that the GPU copies by itself. They are kept, as it takes longer to get them than to copy."""

    device: torch.device

    def home(self, tensor: Tensor, place: Tensor | None) -> Tensor:
        """See `Mover`."""
        place = torch.empty_like(tensor, device="cpu", pin_memory=True) if place is None else place
        return place.copy_(tensor, non_blocking=True)

    def there(self, tensor: Tensor) -> Tensor:
        """See `Mover`."""
        return tensor.to(self.device, non_blocking=True)

    def wait(self) -> None:
        """See `Mover`."""
        torch.cuda.synchronize(self.device)


def mover(wanted: bool, device: torch.device) -> Mover | None:
    """What moves tensors of a device to the host's memory; None where that is not wanted, or the device is the host."""
    return Pinned(device) if wanted and device.type == "cuda" else None


@dataclass
class Offload:
    """Tensors that come to their device to work and leave it afterwards; without a mover they stay where they are.

    Their `data` is exchanged, and they remain the same objects to whoever holds them: model, optimizer, checkpoints.
    """

    mover: Mover | None = None
    homes: dict[Tensor, Tensor] = field(default_factory=dict)
    visits: int = 0

    @property
    def device(self) -> torch.device | None:
        """Where they come to; None where they stay."""
        return None if self.mover is None else self.mover.device

    @torch.no_grad()  # in which `own` of a sharded tensor is the shard itself, and not a view of it
    def come(self, tensors: Iterable[Tensor]) -> None:
        """Bring to the device what has left it."""
        if self.mover is not None:
            for tensor in map(own, tensors):
                if tensor in self.homes:
                    tensor.data = self.mover.there(self.homes[tensor])

    @torch.no_grad()
    def leave(self, tensors: Iterable[Tensor], changed: bool = True) -> None:
        """Take home; what has not `changed` is there already, unless it never was. Counters of one number stay."""
        if self.mover is None:
            return
        for tensor in map(own, tensors):
            if tensor.dim():
                if changed or tensor not in self.homes:
                    self.homes[tensor] = self.mover.home(tensor.data, self.homes.get(tensor))
                tensor.data = self.homes[tensor]
        self.mover.wait()  # who reads them at home does not know of the copying

    @contextmanager
    def here(self, tensors: Sequence[Tensor], changing: Sequence[Tensor] = ()) -> Iterator[None]:
        """Inside, however deep, `tensors` are on the device; the outermost says which of them are `changing` there."""
        self.visits += 1
        if self.visits == 1:
            self.come(tensors)
        try:
            yield
        finally:
            self.visits -= 1
            if not self.visits:
                self.leave(changing)
                self.leave(tensors, changed=False)


def prepare(optimizer: torch.optim.AdamW, params: Sequence[Tensor], states: Offload) -> None:
    """Make what the first step would make of some weights, so that whoever takes it has all that later ones take.

    The numbers are those that torch begins with (fused, where the count of steps lies with its weight).
    """
    for places in buckets([own(p.detach()).numel() for p in params]):
        some = [params[i] for i in places]
        for p in some:
            optimizer.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
            }
        states.leave(tensors_of(optimizer, some))


def step(optimizer: torch.optim.Optimizer, states: Offload) -> None:
    """Take an optimizer step; states that are away come and leave again, those of some weights after the others'.

    The numbers are the same: a weight's step does not depend on the other ones.
    """
    if states.mover is None:
        optimizer.step()
        return
    params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    grads = [p.grad for p in params]
    for p in params:
        p.grad = None  # the optimizer passes over a weight without one
    for places in buckets([own(p.detach()).numel() for p in params]):
        some = [params[i] for i in places]
        states.come(tensors_of(optimizer, some))
        for i in places:
            params[i].grad, grads[i] = grads[i], None
        optimizer.step()
        for p in some:
            p.grad = None
        states.leave(tensors_of(optimizer, some))


def tensors_of(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> list[Tensor]:
    """The states of some weights, of those that have any."""
    return [v for p in params for v in optimizer.state.get(p, {}).values() if isinstance(v, Tensor)]


def buckets(sizes: Sequence[int], most: int = 0) -> list[list[int]]:
    """Places in a row that hold no more than `most` (0: BUCKET) together, unless one alone does."""
    out: list[list[int]] = []
    room = 0
    for place, size in enumerate(sizes):
        if not out or size > room:
            out.append([])
            room = most or BUCKET
        out[-1].append(place)
        room -= size
    return out
