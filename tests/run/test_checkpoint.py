"""Checkpoints that were harmed: the newest whole one is found, and what is wrong with the others is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

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


def steps_left(run: Path) -> list[tuple[int, bool]]:
    """Step of each checkpoint, and whether it is whole."""
    return [(c.step, damage(c) is None) for c in checkpoints(run / "checkpoints")]


def test_a_damaged_checkpoint_never_pushes_out_a_whole_one(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    HARM["cut"](run / "checkpoints" / "step_000004" / "optimizer.safetensors")
    resume = ["train", "--resume", f"run={run}", "-q", "checkpoint.every=1"]
    assert cli_code([*resume, "steps=3", "checkpoint.keep=1"]) == 0  # ends, or is stopped, before the damaged one
    assert steps_left(run) == [(3, True), (4, False)]
    HARM["cut"](run / "checkpoints" / "step_000003" / "random.safetensors")
    shutil.copytree(whole / "checkpoints" / "step_000002", run / "checkpoints" / "step_000002")
    assert cli_code([*resume, "steps=5", "checkpoint.keep=4"]) == 0
    assert steps_left(run) == [(2, True), (3, True), (4, True), (5, True)]


def test_a_damaged_checkpoint_does_not_count_as_kept(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    for step in (1, 3):
        shutil.copytree(whole / "checkpoints" / "step_000002", run / "checkpoints" / f"step_{step:06d}")
    HARM["cut"](run / "checkpoints" / "step_000003" / "optimizer.safetensors")
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=5", "checkpoint.keep=3"]) == 0
    assert steps_left(run) == [(2, True), (3, False), (4, True), (5, True)]


@pytest.fixture
def sharded(whole: Path, tmp_path: Path) -> Path:
    """A run whose newest checkpoint's model lies in several files."""
    run = shutil.copytree(whole, tmp_path / "run")
    model = run / "checkpoints" / "step_000004" / "model"
    loaded = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    loaded.save_pretrained(model, max_shard_size="100KB")
    return run


@pytest.mark.parametrize("harm", HARM)
def test_each_shard_and_its_index_have_to_be_there(
    sharded: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = sharded / "checkpoints" / "step_000004" / "model"
    assert steps_left(sharded) == [(2, True), (4, True)]
    for file in [model / "model.safetensors.index.json", *sorted(model.glob("model-*.safetensors"))[:2]]:
        before = file.read_bytes()
        HARM[harm](file)
        assert steps_left(sharded) == [(2, True), (4, False)]
        for command in ("eval", "export"):
            assert cli_code([command, f"run={sharded}", "-q"]) == 2
            assert "step_000004 is damaged" in capsys.readouterr().err
        file.write_bytes(before)


@pytest.mark.parametrize(
    "changed", [{"python_random": None}, {"python_random": [3, [1], None]}, {"optimizer_steps": "4"}, {"base": []}]
)
def test_a_state_that_cannot_be_restored_is_damaged(whole: Path, tmp_path: Path, changed: dict[str, object]) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    file = run / "checkpoints" / "step_000004" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert steps_left(run) == [(2, True), (4, False)]


def test_an_optimizer_of_another_student_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    file = run / "checkpoints" / "step_000004" / "optimizer.safetensors"
    for odd in ({"999.exp_avg": torch.zeros(1)}, {"0.exp_avg": torch.zeros(3, 5)}, {"odd": torch.zeros(1)}):
        save_file(load_file(whole / "checkpoints" / "step_000004" / file.name) | odd, file)
        assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=5"]) == 2
        assert "of another student" in capsys.readouterr().err
    held = load_file(whole / "checkpoints" / "step_000004" / file.name)
    save_file({name: tensor for name, tensor in held.items() if name != "0.step"}, file)
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=5"]) == 2
    assert "optimizer.safetensors lacks step of a weight" in capsys.readouterr().err
