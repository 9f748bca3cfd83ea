"""Settings of several processes: how many there are, and who starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opd.config.compose import load
from opd.devices.gpus import GPUS, count_gpus, see_one_gpu
from opd.devices.one import One
from opd.devices.ranks import Ranks
from opd.devices.ray import Ray
from opd.devices.team import Solo
from opd.rollout.apart.fleet import card
from opd.rollout.apart.settings import Apart
from opd.types import UserError
from tests.devices.fake_rank import Fake
from tests.rollout.crowd import crowd

ROOT = Path(__file__).parents[2]


class Here(Fake):
    """A job that is done in this process."""

    def here(self) -> str:
        return "done here"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rank of anything."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OPD_STORE", GPUS):
        monkeypatch.setenv(name, "")  # what a test makes of it goes with it
        monkeypatch.delenv(name)


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
        "import sys; from opd.commands.train.job import Order, Training; import opd.cli, opd.rank\n"
        "job = Training(Order({'conf': 'quickstart'}, ('devices=ranks', 'devices.ranks=2')))\n"
        "assert job.devices.ranks == 2 and job.text\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_each_rank_of_a_machine_sees_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    for place, seen in ((0, "4"), (2, "GPU-1")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-1")
        see_one_gpu(place, 3)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(UserError, match="one rank for each"):
        see_one_gpu(0, 3)


@pytest.mark.parametrize(("devices", "instead"), [(One(), "devices=ranks"), (Apart(), "devices.ranks=null")])
def test_a_run_of_one_process_is_refused_where_several_were_started(
    monkeypatch: pytest.MonkeyPatch, devices: One | Apart, instead: str
) -> None:
    started(monkeypatch, rank=0, size=2)
    with pytest.raises(UserError, match=f"2 processes were started .* add {instead}"):
        devices.start(Here("", []))


def started(monkeypatch: pytest.MonkeyPatch, rank: int, size: int, local: int | None = None) -> None:
    """Be one of several processes, `local` of which are on this machine."""
    local = local or size
    own = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank % local, "LOCAL_WORLD_SIZE": local}
    for name, value in own.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "here")


@pytest.mark.parametrize("ranks", [None, 2])
def test_ranks_beside_engines_apart_are_those_that_were_started(
    monkeypatch: pytest.MonkeyPatch, ranks: int | None
) -> None:
    started(monkeypatch, rank=1, size=2)
    assert Apart(ranks=ranks).start(Here("", [])) == "done here"
    assert (Apart(ranks=ranks).sharing, Apart(ranks=ranks, engines=3, ahead=1).sharing) == (2, 5)
    with pytest.raises(UserError, match=r"devices.ranks=3: 2 were started"), Apart(ranks=3).join():
        pass


def test_engines_that_write_ahead_share_the_cores_of_the_first_ranks_machine_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = []
    for rank in (0, 2):
        started(monkeypatch, rank, size=4, local=2)
        shared.append([kind(ranks=4, engines=3, ahead=1).sharing for kind in (Apart, Ray)])
    assert shared == [[5, 5], [2, 2]]


def test_on_ray_the_first_rank_asks_the_engines_that_are_apart_and_else_each_its_own() -> None:
    own, apart = Ray(ranks=2), Ray(ranks=2, engines=3, ahead=1)
    assert crowd(2, lambda team: own.writers(team) is team) == [True, True]
    assert crowd(2, apart.writers) == [Solo(), None]
    assert (own.apart, own.ahead, own.patience) == (None, 0, 1800)
    assert apart.apart is not None
    assert (apart.apart.count, apart.ahead, apart.patience) == (3, 1, 5400), "an engine may be replaced meanwhile"


def test_on_ray_nothing_is_written_ahead_where_no_engine_is_apart() -> None:
    with pytest.raises(UserError, match=r"ahead=1: with engines=0 .* as in devices.engines=1"):
        load("quickstart", ["devices=ray", "devices.ahead=1"])


def test_ranks_beside_engines_apart_take_the_gpus_that_these_leave(
    monkeypatch: pytest.MonkeyPatch, alone: None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5")
    assert Apart(ranks=None, engines=2).sharing == 4
    for ranks, gpus in ((2, 7), (None, 7)):
        with pytest.raises(UserError, match=rf"that is {gpus} GPUs on this machine, and 6 can be seen"):
            Apart(ranks=ranks, engines=5 if ranks else 6).start(Here("", []))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=r"no GPU here; give their number"):
        Apart(ranks=None).start(Here("", []))
    with pytest.raises(UserError, match=r"devices.shard=2: 1 ranks"):
        Apart(shard=2).start(Here("", []))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(UserError, match=r"devices.tensor_parallel=3: that is 5 GPUs on this machine, and 3 can be"):
        Apart(ranks=2, tensor_parallel=3).start(Here("", []))
    with pytest.raises(UserError, match=r"devices.tensor_parallel=4: 3 GPUs can be seen here"):
        Apart(tensor_parallel=4).start(Here("", []))
    assert Apart(ranks=None, tensor_parallel=2).count == 1, "what its engine leaves"


def test_an_engine_apart_sees_one_of_the_last_gpus_whatever_its_rank_sees(
    monkeypatch: pytest.MonkeyPatch, alone: None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-1,7")
    assert [card(number, 2)["CUDA_VISIBLE_DEVICES"] for number in range(2)] == ["GPU-1", "7"]
    assert card(0, 4) == {}, "the learner would have none"
    assert card(0, 1, 2) == {"CUDA_VISIBLE_DEVICES": "GPU-1,7"}
    assert [card(number, 2, 1) for number in range(2)] == [card(number, 2) for number in range(2)]
    assert card(0, 2, 2) == {}
    see_one_gpu(0, 2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
    assert [card(number, 2)["CUDA_VISIBLE_DEVICES"] for number in range(2)] == ["GPU-1", "7"]


def test_a_rank_that_was_bound_to_a_gpu_by_somebody_else_has_none_for_its_engines(
    monkeypatch: pytest.MonkeyPatch, alone: None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    started(monkeypatch, rank=0, size=4, local=2)
    with pytest.raises(UserError, match="let every process see all of them"), Apart(ranks=4).join():
        pass


def test_a_number_of_some_other_program_makes_no_rank(monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="no GPU here"):
        Ranks().start(Here("", []))
