"""What tells a model from others: whichever of its weights a training has changed, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from opd.models.fingerprint import fingerprint, sampled
from opd.types import Pretrained
from tests.tiny import save_model

NAME = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tensors are of more than one block, but for the norms."""
    return save_model(tmp_path_factory.mktemp("large"), "qwen3", seed=0, tied=True, hidden=256)


def test_a_change_of_any_one_tensor_shows(folder: Path, tmp_path: Path) -> None:
    tensors, file = load_file(folder / NAME), tmp_path / NAME
    save_file(tensors, file)
    before = sampled(file)
    for name, tensor in tensors.items():
        some = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)) < 0.1  # what is rounded stays
        save_file(tensors | {name: torch.where(some, tensor * 1.01 + 1e-3, tensor)}, file)
        assert sampled(file) != before, name


def test_a_copy_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    os.utime(copy / NAME, (0, 0))
    assert fingerprint(Pretrained(str(copy))) == fingerprint(Pretrained(str(folder)))


@pytest.mark.parametrize("header", [
    b"", b"{", b"[]", b'{"a": 1}', b'{"a": {"data_offsets": 1}}', b'{"a": {"data_offsets": [-99, 1e999]}}',
    b'{"a": {"data_offsets": [0, 1, 2]}}', b'{"a": {"data_offsets": [9, 1]}}', b'{"a": {"data_offsets": ["x", null]}}',
])  # fmt: skip
def test_what_is_none_of_its_kind_has_one_too(tmp_path: Path, header: bytes) -> None:
    files = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for i, file in enumerate(files):
        file.write_bytes(len(header).to_bytes(8, "little") + header + bytes([i]) * 9)
        assert sampled(file) == sampled(file)
    assert "offsets" in header.decode() or sampled(files[0]) != sampled(files[1])
    (tmp_path / "empty.bin").touch()
    (tmp_path / "other.bin").write_bytes(b"1")
    assert sampled(tmp_path / "empty.bin") != sampled(tmp_path / "other.bin")
