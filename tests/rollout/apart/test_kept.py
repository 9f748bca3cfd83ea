"""Weights that lie in shared memory are those that were put there, whatever their shapes."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch

from opd.rollout.apart import kept
from opd.rollout.apart.kept import Kept, Reader

WEIGHTS = {
    "odd": torch.arange(7, dtype=torch.bfloat16),
    "turned": torch.arange(12.0).view(3, 4).T,
    "large": torch.randn(40, 40),
    "scalar": torch.tensor(3, dtype=torch.int64),
    "none": torch.empty(0, 5),
    "last": torch.randn(9),
}


def read(reader: Reader, held: Kept) -> dict[str, torch.Tensor]:
    return dict(reader.read(held.places, held.index))


@pytest.mark.parametrize("bucket", [64, 200, 10**6])
def test_tensors_of_any_shape_and_size_are_read_as_they_were(bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "BUCKET", bucket)
    held, reader = Kept(), Reader()
    for version in (1, 2):
        given = {name: tensor * version for name, tensor in WEIGHTS.items()}
        held.fill(given.items(), version)
        found = read(reader, held)
        assert list(found) == list(given)
        assert all(found[name].dtype == t.dtype and torch.equal(found[name], t) for name, t in given.items())
    assert len(held.places) == {64: 5, 200: 3, 10**6: 1}[bucket]


def test_weights_are_taken_one_at_a_time() -> None:
    alive: list[int] = []

    def made(count: int):
        for i in range(count):
            alive.append(i)
            yield str(i), torch.full((3,), float(i))
            alive.remove(i)

    held = Kept()
    held.fill(made(5), 1)
    assert not alive
    assert [float(t[0]) for t in read(Reader(), held).values()] == [0, 1, 2, 3, 4]


def test_memory_goes_with_the_last_who_has_it_and_a_file_number_is_not_taken_for_the_one_before() -> None:
    gc.collect()
    before, reader = len(os.listdir("/proc/self/fd")), Reader()
    for value in (1.0, 2.0):
        held = Kept()
        held.fill([("w", torch.full((4,), value))], 1)
        assert Path(held.places[0][1]).exists()
        assert read(reader, held)["w"].tolist() == [value] * 4
        del held
    del reader
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
