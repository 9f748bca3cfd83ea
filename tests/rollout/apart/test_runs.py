"""Whole runs with engines apart: in turn they are the run of one process; ahead, they go on as they began."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from opd.run import manifest
from opd.run.checkpoint import checkpoints
from tests.test_loop import learned, start, wait_for_step
from tests.tiny import cli_code, save_config

AHEAD = ("devices=apart", "devices.ahead=1")
pytestmark = pytest.mark.slow


def trained(config: Path, run: Path, *overrides: str) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Metrics and weights of a run."""
    assert cli_code(["train", f"conf={config}", f"run={run}", "threads=1", "-q", *overrides]) == 0
    return learned(run), load_file(checkpoints(run / "checkpoints")[-1].model / "model.safetensors")


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_in_one_process_imports_nothing_of_engines_apart() -> None:
    seen = "import sys, opd.loop; print(*(name for name in sys.modules if name.startswith('opd.rollout')))"
    modules = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True).stdout.split()
    assert "opd.rollout.drafts" in modules
    assert not any("apart" in name for name in modules)


def test_an_engine_apart_and_in_turn_gives_the_run_of_one_process_to_the_bit(config: Path, tmp_path: Path) -> None:
    one, apart = (trained(config, tmp_path / kind, f"devices={kind}") for kind in ("one", "apart"))
    assert one[0] == apart[0]
    assert same(one[1], apart[1])


@dataclass(frozen=True)
class Whole:
    """A run one step ahead that nothing disturbed."""

    config: Path
    metrics: list[dict[str, float]]
    weights: dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
    return Whole(config, *trained(config, folder / "run", *AHEAD))


def begin(config: Path, run: Path) -> subprocess.Popen[str]:
    """Start the same run; wait until it is in the middle."""
    slowly = ("teacher._target_=tests.fakes.SlowTeacher", "teacher.seconds=0.3")
    process = start(f"conf={config}", f"run={run}", "-q", "threads=1", *AHEAD, *slowly)
    wait_for_step(run, 3, 300)
    return process


def engines(parent: int) -> list[int]:
    """The processes that engines have."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_one_step_ahead_every_rollout_is_a_step_old(whole: Whole) -> None:
    assert [row.get("rollout/age") for row in whole.metrics] == [None, None, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_the_same_run_one_step_ahead_in_one_process_learns_the_same(whole: Whole, tmp_path: Path) -> None:
    metrics, weights = trained(whole.config, tmp_path / "run", "devices.ahead=1")
    assert metrics == whole.metrics
    assert same(weights, whole.weights)


def test_a_killed_run_goes_on_exactly_and_without_what_was_written_ahead_in_another_way(
    whole: Whole, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    process = begin(whole.config, killed)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [c.step for c in checkpoints(killed / "checkpoints")][-1] < 6
    shutil.copytree(killed, lost := tmp_path / "lost")
    assert cli_code(["train", "--resume", f"run={killed}", "-q"]) == 0
    assert learned(killed) == whole.metrics
    assert same(load_file(killed / "checkpoints/step_000006/model/model.safetensors"), whole.weights)
    for place in (lost / "checkpoints").glob("*/ahead.safetensors"):
        place.unlink()
        manifest.write(place.parent)  # as of a run that did not write ahead
    assert cli_code(["train", "--resume", f"run={lost}", "-q"]) == 0
    assert not same(load_file(lost / "checkpoints/step_000006/model/model.safetensors"), whole.weights)


def test_a_run_whose_engine_is_killed_is_the_same_run(whole: Whole, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = begin(whole.config, run)
    (engine,) = engines(process.pid)
    os.kill(engine, signal.SIGKILL)
    assert process.wait(300) == 0
    assert not Path(f"/proc/{engine}").exists()
    assert learned(run) == whole.metrics
    assert same(load_file(run / "checkpoints/step_000006/model/model.safetensors"), whole.weights)
