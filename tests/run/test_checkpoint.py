"""Checkpoints that were harmed: the newest whole one is found, and what is wrong with the others is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from opd.commands import subject
from opd.commands.eval import measure
from opd.commands.export import export
from opd.run import checkpoint as ckpt
from opd.run import manifest
from opd.run.checkpoint import Checkpoint, alone, checkpoints, damage, held, latest
from opd.run.metrics import read_metrics
from tests.tiny import cli_code, save_config

NEW = ("proven", "stepped")
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


def older(run: Path) -> Path:
    """Make a run's checkpoints ones of an opd that wrote no manifest."""
    for checkpoint in checkpoints(run / "checkpoints"):
        (checkpoint.path / manifest.NAME).unlink()
        state = checkpoint.state()
        (checkpoint.path / "state.json").write_text(json.dumps({k: state[k] for k in state if k not in NEW}))
    return run


@pytest.mark.parametrize("written", ["now", "before"])
@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("file", FILES)
def test_a_harmed_checkpoint_is_passed_over(whole: Path, tmp_path: Path, file: str, harm: str, written: str) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    if written == "before":
        older(run)
    HARM[harm](run / "checkpoints" / "step_000004" / file)
    found, damaged = latest(run / "checkpoints")
    assert found is not None
    assert found.step == 2
    assert damage(found) is None
    if (file, harm, written) != ("state.json", "gone", "before"):  # what has neither was never finished
        (said,) = map(str, damaged)
        assert Path(file).name in said


def test_a_flipped_bit_a_stranger_and_a_lost_or_edited_manifest_are_damage(whole: Path, tmp_path: Path) -> None:
    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[-9] ^= 1  # of a weight: no header, size or name tells
        file.write_bytes(data)

    def edit(file: Path) -> None:
        said = json.loads(file.read_text())
        said["files"].pop("optimizer.safetensors")
        file.write_text(json.dumps(said))

    run = shutil.copytree(whole, tmp_path / "run")
    place = Checkpoint(run / "checkpoints" / "step_000004")
    for harm, name, says in (
        (flip, "model/model.safetensors", "its checksum differs"),
        (flip, "model/tokenizer.json", "its checksum differs"),
        (Path.unlink, manifest.NAME, f"{manifest.NAME} is missing"),
        (edit, manifest.NAME, "optimizer.safetensors does not belong to it"),
        (lambda file: file.write_text("[]"), manifest.NAME, f"{manifest.NAME}: it cannot be read"),
        (Path.touch, "model/model.safetensors.index.json", "does not belong to it"),
        (lambda file: [file.unlink(), file.mkdir()], "random.safetensors", "is no file"),
    ):
        file = place.path / name
        before = file.read_bytes() if file.exists() else None
        harm(file)
        assert says in str(damage(place)), name
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        if before is not None:
            file.write_bytes(before)
        assert damage(place) is None
    for name in ("notes.txt", "model/.DS_Store"):
        (place.path / name).touch()
        assert damage(place) is None, "what nobody reads harms nobody"


@pytest.mark.parametrize("written", ["now", "before"])
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "metrics.safetensors", "model/config.json"])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_nobody_waits_for_a_pipe_or_reads_a_device_in_a_checkpoint(
    whole: Path, tmp_path: Path, name: str, kind: str, written: str
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    newest = checkpoints((older(run) if written == "before" else run) / "checkpoints")[-1]
    (newest.path / name).unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(newest.path / name)
    else:
        (newest.path / name).symlink_to("/dev/zero")
    assert damage(newest)


def test_whoever_asks_for_a_checkpoint_that_its_run_removes_meanwhile_is_told_so(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    found = subject.chosen_checkpoint

    def removed(*asked: Any) -> Checkpoint:
        checkpoint = found(*asked)
        shutil.rmtree(checkpoint.path)
        return checkpoint

    monkeypatch.setattr(subject, "chosen_checkpoint", removed)
    for command in ("eval", "export"):
        assert cli_code([command, f"run={run}", "-q"]) == 2
        assert "it has changed while it was read" in capsys.readouterr().err
        shutil.copytree(whole, run, dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("command", "module", "reads"), [("eval", measure, "of_student"), ("export", export, "_learner")]
)
def test_a_checkpoint_that_is_read_while_its_run_goes_on_stays_until_that_is_done(
    command: str, module: ModuleType, reads: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read = shutil.copytree(whole, tmp_path / "run"), getattr(module, reads)
    on = ["train", "--resume", f"run={run}", "-q", "checkpoint.every=1", "checkpoint.keep=1", "eval.every=0"]

    def trained_on(*args: Any) -> Any:
        assert cli_code([*on, "steps=6"]) == 0
        return read(*args)

    monkeypatch.setattr(module, reads, trained_on)
    assert cli_code([command, f"run={run}", "-q"]) == 0
    assert steps_left(run) == [(4, True), (6, True)]
    assert cli_code([*on, "steps=7"]) == 0
    assert steps_left(run) == [(7, True)]


def test_who_looks_for_a_checkpoint_while_another_one_takes_its_place_gets_that_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    found = ckpt.checkpoints

    def superseded(place: Path) -> list[Checkpoint]:
        there = found(place)
        monkeypatch.undo()
        shutil.copytree(folder / "step_000004", folder / "step_000005")
        for old in there:
            shutil.rmtree(old.path)
        return there

    monkeypatch.setattr(ckpt, "checkpoints", superseded)
    assert [c.step for c in held(folder)] == [5]


def test_one_that_is_read_is_kept_by_its_readers_alone_and_by_none_that_was_killed(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    reads = (
        "import sys, time; from pathlib import Path; from opd.run.checkpoint import held\n"
        "there = held(Path(sys.argv[1])); print(len(there), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", reads, str(folder)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"2\n"
        first, last = held(folder)
        del first
        with pytest.raises(BlockingIOError), alone(checkpoints(folder)[0]):
            pass
        reader.kill()
    with alone(checkpoints(folder)[0]):
        pass
    with pytest.raises(BlockingIOError), alone(last):
        pass


def test_what_was_written_of_steps_that_are_done_again_does_not_stay(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    kept = {p.name for p in run.glob("*/*") if "000004" in p.name}
    assert kept == {"step_000004", "step_000004.parquet", "student_step_000004.json", "student_step_000004.jsonl"}
    (run / "rollouts" / "mine_000009.parquet").touch()
    shutil.rmtree(run / "checkpoints" / "step_000004")
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=3", "log.rollouts_every=0"]) == 0
    assert not [p for p in run.glob("*/*") if "000004" in p.name]
    assert (run / "rollouts" / "step_000002.parquet").is_file()
    assert (run / "rollouts" / "mine_000009.parquet").is_file()


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(whole: Path, tmp_path: Path) -> None:
    moved = Checkpoint(shutil.copytree(whole / "checkpoints" / "step_000002", tmp_path / "step_000007"))
    assert damage(moved) == "it is of step 2, and has another name"


def test_a_whole_checkpoint_of_another_run_is_passed_over_and_the_runs_own_rows_stay(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = shutil.copytree(whole, tmp_path / "run"), tmp_path / "other"
    conf = ["train", f"conf={whole.parent / 'tiny.yaml'}", "-q", "steps=4", "eval.every=0"]
    assert cli_code([*conf, f"run={other}", "seed=7"]) == 0
    before, newest = read_metrics(run / "metrics.jsonl"), "checkpoints/step_000004"
    shutil.rmtree(run / newest)
    shutil.copytree(other / newest, run / newest)
    capsys.readouterr()
    assert cli_code(["doctor", f"run={run}"]) == 1
    assert "of another run" in capsys.readouterr().out
    assert cli_code(["train", "--resume", f"run={run}", "-q"]) == 0
    assert "step_000004 is damaged (it is of another run" in capsys.readouterr().err
    figures = [[row.get("kl/exact") for row in rows] for rows in (before, read_metrics(run / "metrics.jsonl"))]
    assert figures[0] == figures[1]
    assert cli_code(["doctor", f"run={run}"]) == 0


def test_what_is_not_read_to_the_end_is_compared_by_its_size(whole: Path, tmp_path: Path) -> None:
    place = Checkpoint(shutil.copytree(whole / "checkpoints" / "step_000004", tmp_path / "step_000004"))
    file = place.path / "optimizer.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert damage(place, "model/") is None
    assert damage(place, None) is None
    assert damage(place) is not None
    HARM["cut"](file)
    assert damage(place, None) is not None


def test_checkpoints_of_an_earlier_opd_are_taken_and_it_is_said(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = older(shutil.copytree(whole, tmp_path / "run"))
    assert cli_code(["train", "--resume", f"run={run}", "steps=5"]) == 0
    assert "step_000004: it has no manifest.json" in capsys.readouterr().err
    assert steps_left(run) == [(4, True), (5, True)]


def test_a_run_goes_on_from_the_newest_whole_one_and_comes_to_the_same(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    HARM["cut"](run / "checkpoints" / "step_000004" / "optimizer.safetensors")
    assert cli_code(["train", "--resume", f"run={run}"]) == 0
    said = capsys.readouterr().err
    assert "step_000004 is damaged (optimizer.safetensors" in said
    assert "going on from step_000002: the steps 3 to 4 are lost, and are done again" in said
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


def test_what_is_no_checkpoint_is_left_alone_and_in_nobodys_way(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    folder = run / "checkpoints"
    elsewhere = shutil.copytree(folder / "step_000002", tmp_path / "elsewhere")
    for name in ("step_best", "step_", "step_000004_old", "step_-1", "step_final", "best"):
        shutil.copytree(folder / "step_000002", folder / name)
    (folder / "step_000001").symlink_to(elsewhere)
    (folder / "step_000003").write_text("a note")
    (folder / ".step_000005.writing").symlink_to(elsewhere)
    (folder / ".step_notes.writing").mkdir()
    (folder / ".step_000003.writing" / "model").mkdir(parents=True)  # what a killed run has left
    assert [c.step for c in checkpoints(folder)] == [2, 4]
    before = {p.name for p in folder.iterdir()}
    for command, *rest in (
        ["train", f"run={run}", "--resume", "steps=6", "checkpoint.every=1", "checkpoint.keep=1"],
        ["eval", f"run={run}"], ["export", f"run={run}"], ["sample", f"run={run}", "-p", "1+1"], ["report", str(run)],
    ):  # fmt: skip
        assert cli_code([command, *rest]) == 0, command
    gone = {"step_000002", "step_000004", ".step_000003.writing"}
    assert {p.name for p in folder.iterdir()} == before - gone | {"step_000006"}
    assert (elsewhere / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["step_000005", "step_000004"])
def test_a_link_in_the_place_of_a_checkpoint_is_named_before_anything_is_done(
    whole: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    place = run / "checkpoints" / name
    if place.exists():
        place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert cli_code(["train", "--resume", f"run={run}", "steps=6"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{name}: this is no checkpoint of the run" in line
    assert place.is_symlink()


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
        made = shutil.copytree(whole / "checkpoints" / "step_000002", run / "checkpoints" / f"step_{step:06d}")
        changed(made, step=step)
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
    manifest.write(model.parent)
    return run


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("written", ["now", "before"])
def test_each_shard_and_its_index_have_to_be_there(
    sharded: Path, harm: str, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = sharded / "checkpoints" / "step_000004" / "model"
    if written == "before":
        older(sharded)
    assert steps_left(sharded) == [(2, True), (4, True)]
    for file in [model / "model.safetensors.index.json", *sorted(model.glob("model-*.safetensors"))[:2]]:
        before = file.read_bytes()
        HARM[harm](file)
        assert steps_left(sharded) == [(2, True), (4, False)]
        for command in ("eval", "export"):
            assert cli_code([command, f"run={sharded}", "-q"]) == 2
            assert "step_000004 is damaged" in capsys.readouterr().err
        file.write_bytes(before)


def changed(place: Path, **state: object) -> None:
    """Change a checkpoint's state as if it had been written so."""
    file = place / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | state))
    manifest.write(place)


def test_whoever_goes_on_reads_a_checkpoint_to_its_end_once(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    read: list[str] = []
    digest = hashlib.file_digest

    def noted(file: Any, kind: Any) -> Any:
        read.append(Path(file.name).name)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    assert cli_code(["train", "--resume", f"run={run}", "-q"]) == 0  # it has all its steps behind it
    assert read.count("optimizer.safetensors") == 1


@pytest.mark.parametrize(("rows", "settings"), [(True, True), (True, False), (False, True)])
def test_the_only_checkpoint_is_another_runs_where_neither_rows_nor_settings_are_this_ones(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: bool, settings: bool
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    for one in checkpoints(run / "checkpoints")[:-1]:
        shutil.rmtree(one.path)
    own = run / "metrics.jsonl"
    if rows:
        own.write_text(own.read_text().replace('{"step": 0', '{"step": 0, "other": 1'))
    if settings:
        (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("lr: 0.003", "lr: 0.001"))
    assert cli_code(["train", "--resume", f"run={run}", "-q"]) == (2 if rows and settings else 0)
    said = "it has neither the rows nor the settings of this one"
    assert (said in capsys.readouterr().err) == (rows and settings)
