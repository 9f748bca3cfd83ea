"""An exported folder is the learner's model, or there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from opd.commands import export, formats, parity
from opd.devices.compute import dtype_name
from tests.tiny import cli_code


@pytest.fixture
def run(config: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={folder}", "-q", "steps=2", *getattr(request, "param", [])]) == 0
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_exported_folder_is_whole_and_the_learners(
    run: Path, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_code(["export", f"run={run}", "--dtype", dtype, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    folder = Path(result["path"])
    names = {p.name for p in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "README.md"} <= names
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert 1 in GenerationConfig.from_pretrained(folder).eos_token_id
    exported = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    learner = load_file(run / "checkpoints/step_000002/model/model.safetensors")
    for name, value in learner.items():
        assert exported[name].dtype == getattr(torch, dtype)
        assert torch.equal(exported[name], value.to(getattr(torch, dtype)))
    assert result["parity"]["transformers"] <= result["parity"]["tolerance"]
    card = (folder / "README.md").read_text()
    assert "step 2" in card
    assert "ReverseKL" in card


@pytest.mark.parametrize("run", [["student.lora.rank=4"]], indirect=True)
def test_adapters_are_exported_merged_or_alone(run: Path, tmp_path: Path) -> None:
    assert cli_code(["export", f"run={run}", "-q", "--dtype", "float32"]) == 0
    merged = run / "export/step_000002"
    assert not (merged / "adapter_config.json").exists()
    AutoModelForCausalLM.from_pretrained(merged)
    assert cli_code(["export", f"run={run}", "-q", "--adapter"]) == 0
    assert (run / "export/step_000002-adapter/adapter_model.safetensors").is_file()


def test_an_export_that_is_another_model_fails_and_leaves_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = formats.write

    def damaged(subject: Any, learner: Any, folder: Path, order: formats.Order) -> formats.Written:
        written = whole(subject, learner, folder, order)
        tensors = load_file(folder / "model.safetensors")
        name = next(n for n in tensors if "down_proj" in n)
        save_file(tensors | {name: tensors[name] * 1.5}, folder / "model.safetensors", metadata={"format": "pt"})
        return written

    monkeypatch.setattr(formats, "write", damaged)
    assert cli_code(["export", f"run={run}", "-q", "--dtype", "float32"]) == 1
    assert "not the learner's model" in capsys.readouterr().err
    assert not (run / "export").exists()


def test_an_engine_is_held_to_the_coarser_of_what_the_export_is_in_and_what_it_computes_in() -> None:
    assert parity.engine_tolerance("float32", "auto") == parity.TOLERANCE[dtype_name("auto")]
    assert parity.engine_tolerance("float32", "float32") == parity.TOLERANCE["float32"]
    assert parity.engine_tolerance("bfloat16", "float32") == parity.TOLERANCE["bfloat16"]


def test_an_adapter_of_a_run_without_one_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["export", f"run={run}", "--adapter"]) == 2
    assert "--adapter" in capsys.readouterr().err


SHORT = ["data.prompts_per_step=4", "eval.size=4", "eval.every=0", "preflight.prompts=4", "sampling.max_tokens=4"]


@pytest.mark.parametrize("run", [SHORT], indirect=True)
def test_what_cannot_be_a_new_folder_is_refused_before_anything_is_loaded(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "_learner", lambda subject: pytest.fail("the learner was loaded"))
    file, full = tmp_path / "file", tmp_path / "full"
    file.write_text("mine")
    full.mkdir()
    (full / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    links, long = (tmp_path / "link", tmp_path / "circle", tmp_path / "circle" / "x"), tmp_path / ("x" * 999)
    for out in (file, file / "x", *links, full, full / "..", Path("/proc/x"), long):
        assert cli_code(["export", f"run={run}", "-q", "--out", str(out)]) == 2
        assert "--out=/" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert [p.name for p in full.iterdir()] == ["mine"]


@pytest.mark.parametrize("run", [SHORT], indirect=True)
def test_a_folder_that_is_empty_or_only_named_gets_the_export_however_it_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here, real = (tmp_path / name for name in ("home", "here", "real"))
    for folder in (home, here, real):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (real / export.DRAFT).mkdir()  # of an export that was killed
    named = {"~/x": home / "x", ".": here, "../link": real, "../dangling": tmp_path / "nowhere", "a/b": here / "a/b"}
    for out, place in [("a/b", named.pop("a/b")), *named.items()]:
        if out == ".":
            shutil.rmtree(here / "a")
        inode = place.stat().st_ino if place.exists() else None
        assert cli_code(["export", f"run={run}", "-q", "--out", out]) == 0
        assert {"config.json", "model.safetensors", "README.md"} <= {p.name for p in place.iterdir()}
        assert not [p for p in (*place.iterdir(), *place.parent.iterdir()) if export.DRAFT in p.name]
        assert inode in (None, place.stat().st_ino)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("run", [[*SHORT, "student.lora.rank=4"], SHORT], indirect=True, ids=["lora", "full"])
def test_an_export_is_replaced_by_the_next_unless_files_of_others_lie_in_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert cli_code(["export", f"run={run}", "-q"]) == 0
    mine = run / "export/step_000002/mine.gguf"
    mine.write_text("mine")
    assert cli_code(["export", f"run={run}", "-q"]) == 2
    assert "mine.gguf" in capsys.readouterr().err
    assert mine.read_text() == "mine"
