"""Checkpoints that were harmed: the newest whole one is found, and what is wrong with the others is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opd.run.checkpoint import checkpoints, damage, latest
from opd.run.metrics import read_metrics
from tests.tiny import cli_code, save_config

FILES = ["state.json", "optimizer.safetensors", "random.safetensors", "model/config.json", "model/model.safetensors"]
HARM: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "gone": lambda file: file.unlink(),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> Path:
    """A finished run of four steps with checkpoints of the steps 2 and 4."""
    folder = tmp_path_factory.mktemp("whole")
    config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
    assert cli_code(["train", f"conf={config}", f"run={folder / 'run'}", "-q", "steps=4", "eval.every=0"]) == 0
    return folder / "run"


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("file", FILES)
def test_a_harmed_checkpoint_is_passed_over(whole: Path, tmp_path: Path, file: str, harm: str) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    HARM[harm](run / "checkpoints" / "step_000004" / file)
    found, damaged = latest(run / "checkpoints")
    assert found is not None
    assert found.step == 2
    assert damage(found) is None
    if (file, harm) != ("state.json", "gone"):  # what has no state was never finished
        (said,) = damaged
        assert Path(file).name in said or "there is no" in said


def test_a_run_goes_on_from_the_newest_whole_one_and_comes_to_the_same(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    HARM["cut"](run / "checkpoints" / "step_000004" / "optimizer.safetensors")
    assert cli_code(["train", "--resume", f"run={run}"]) == 0
    assert "step_000004 is damaged (optimizer.safetensors" in capsys.readouterr().err
    a, b = (load_file(r / "checkpoints/step_000004/model/model.safetensors") for r in (whole, run))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [r["step"] for r in read_metrics(run / "metrics.jsonl")] == [0, 1, 2, 3, 4]


def test_nothing_is_evaluated_or_exported_in_place_of_a_harmed_one(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    HARM["cut"](run / "checkpoints" / "step_000004" / "model" / "model.safetensors")
    assert cli_code(["eval", f"run={run}"]) == 2
    assert "step=2 is whole" in capsys.readouterr().err
    assert cli_code(["export", f"run={run}", "step=4"]) == 2
    assert "name another step" in capsys.readouterr().err
    assert cli_code(["export", f"run={run}", "step=2", "-q"]) == 0


def test_where_all_are_harmed_each_is_named(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    for checkpoint in checkpoints(run / "checkpoints"):
        HARM["emptied"](checkpoint.model / "model.safetensors")
    assert cli_code(["train", "--resume", f"run={run}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "step_000004 is damaged" in line
    assert "step_000002 is damaged" in line


def test_folders_of_other_names_are_left_alone(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "run") / "checkpoints"
    for name in ("step_best", "step_", "step_000004_old", "step_-1", "best"):
        shutil.copytree(folder / "step_000002", folder / name)
    assert [c.step for c in checkpoints(folder)] == [2, 4]
