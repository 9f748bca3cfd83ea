"""Weights in memory that processes share: written once, read by every engine, kept for the one that dies.

Nothing is written where an engine may still read: vLLM holds on to the tensors that it is handed until a layer is
complete, and a buffer that is filled again meanwhile changes them without an error.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from itertools import count
from typing import TYPE_CHECKING, Any

from opd.types import Weights

if TYPE_CHECKING:
    from torch import Tensor

BUCKET = 256 * 2**20
"""Bytes that are asked for at once; a larger tensor gets its own. What is not written to takes no memory."""
Place = tuple[int, str, int]
"""The number of a bucket, the path where another process finds it, and its bytes."""
Entry = tuple[str, Any, tuple[int, ...], int, int]
"""Name, torch dtype, shape, which bucket, and the byte in it where a tensor begins."""
_numbers = count()


@dataclass
class Bucket:
    """Memory of this process that others can map: it goes with the last of them, however they end."""

    size: int
    number: int = field(init=False, default_factory=_numbers.__next__)
    """No two have the same; their files may, one after the other."""
    file: FileIO = field(init=False)
    data: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Ask for it; no page of it is there before it is written to."""
        self.file = FileIO(os.memfd_create("opd-weights"), "r+")
        self.file.truncate(self.size)
        self.data = mapped(self.file.fileno(), self.size)


@dataclass
class Kept:
    """One set of weights."""

    version: int = 0
    buckets: list[Bucket] = field(default_factory=list)
    index: list[Entry] = field(default_factory=list)

    def fill(self, weights: Weights, version: int) -> None:
        """Copy weights in, over what was here; each is let go of before the next one is asked for."""
        self.version, self.index = version, []
        which, used = 0, 0
        for name, tensor in weights:
            tensor = tensor.detach()
            size = tensor.numel() * tensor.element_size()
            while which < len(self.buckets) and used + size > self.buckets[which].size:
                which, used = which + 1, 0
            if which == len(self.buckets):
                self.buckets.append(Bucket(max(size, BUCKET)))
            view(self.buckets[which].data, tensor.dtype, tuple(tensor.shape), used).copy_(tensor)
            self.index.append((name, tensor.dtype, tuple(tensor.shape), which, used))
            used += -(-size // 64) * 64

    @property
    def places(self) -> list[Place]:
        """Where another process finds the buckets."""
        return [(b.number, f"/proc/{os.getpid()}/fd/{b.file.fileno()}", b.size) for b in self.buckets]


@dataclass
class Reader:
    """The other process's side: maps every bucket once."""

    _maps: dict[int, Tensor] = field(default_factory=dict)

    def read(self, places: list[Place], index: list[Entry]) -> Iterator[tuple[str, Tensor]]:
        """The weights, not copied: what they show may change once the push has been answered."""
        for number, path, size in places:
            if number not in self._maps:
                with FileIO(path, "r+") as file:
                    self._maps[number] = mapped(file.fileno(), size)
        for name, dtype, shape, which, begin in index:
            yield name, view(self._maps[places[which][0]], dtype, shape, begin)


@dataclass(frozen=True)
class Shared:
    """Weights in another process's memory, gone through as often as wished; a third process can be told where."""

    reader: Reader
    places: list[Place]
    index: list[Entry]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Them, by name; not copied."""
        return self.reader.read(self.places, self.index)


def mapped(file: int, size: int) -> Tensor:
    """A file's bytes, uint8 [size]; the tensor holds the mapping."""
    import torch

    return torch.frombuffer(mmap.mmap(file, size), dtype=torch.uint8)


def view(data: Tensor, dtype: Any, shape: tuple[int, ...], begin: int) -> Tensor:
    """The tensor that lies in some bytes from `begin` on."""
    import torch

    size = torch.Size(shape).numel() * dtype.itemsize
    return data[begin : begin + size].view(dtype).view(shape)
