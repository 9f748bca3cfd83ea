"""Settings of several processes: how many there are, and who starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opd.devices.gpus import count_gpus, see_one_gpu
from opd.devices.one import One
from opd.devices.ranks import Ranks
from opd.rollout.apart.settings import Apart
from opd.types import UserError
from tests.devices.fake_rank import Fake

ROOT = Path(__file__).parents[2]


class Here(Fake):
    """A job that is done in this process."""

    def here(self) -> str:
        return "done here"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rank of anything."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OPD_STORE"):
        monkeypatch.delenv(name, raising=False)


def test_a_rank_that_torchrun_started_starts_none(monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "here")
    assert Ranks(ranks=2).start(Here("", [])) == "done here"


def test_without_a_gpu_their_number_must_be_given(monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=r"devices.ranks=2"):
        Ranks().start(Here("", []))


@pytest.mark.parametrize(
    ("visible", "count"), [("", 0), ("0", 1), ("0,1,3", 3), ("-1", 0), ("0,-1,2", 1), ("GPU-8932f937,GPU-1", 2)]
)
def test_gpus_that_are_visible_are_counted(visible: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_gpus() == 0
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H100 (UUID: GPU-2)'\n")
    program.chmod(0o755)
    assert count_gpus() == 2


def test_cores_are_shared_with_the_ranks_of_this_machine(monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    assert (One().sharing, Ranks(ranks=3).sharing) == (1, 3)
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert (One().sharing, Ranks().sharing) == (1, 8)


def test_what_only_waits_for_ranks_imports_no_torch() -> None:
    asks = (
        "import sys; from opd.commands.training import Order, Training; import opd.cli, opd.rank\n"
        "job = Training(Order({'conf': 'quickstart'}, ('devices=ranks', 'devices.ranks=2')))\n"
        "assert job.devices.ranks == 2 and job.text\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_each_rank_of_a_machine_sees_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, seen in ((0, "4"), (2, "GPU-1")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-1")
        see_one_gpu(place, 3)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(UserError, match="one rank for each"):
        see_one_gpu(0, 3)


@pytest.mark.parametrize("devices", [One(), Apart()])
def test_a_run_of_one_process_is_refused_where_several_were_started(
    monkeypatch: pytest.MonkeyPatch, devices: One | Apart
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "here")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="devices=ranks"):
        devices.start(Here("", []))


def test_a_number_of_some_other_program_makes_no_rank(monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="no GPU here"):
        Ranks().start(Here("", []))
