"""An exported folder is the learner's model, or there is none."""

from __future__ import annotations

import itertools
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from opd.commands.export import export, formats, parity
from opd.commands.export.order import Order
from opd.devices.compute import dtype_name
from opd.teachers.quantized import load_quantized
from opd.types import Pretrained, UserError
from tests.tiny import cli_code, save_model


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

    def damaged(subject: Any, learner: Any, folder: Path, order: Order) -> formats.Written:
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
    whole, half = Order("float32"), Order("bfloat16")
    assert parity.engine_tolerance(whole, "auto") == parity.TOLERANCE[dtype_name("auto")]
    assert parity.engine_tolerance(whole, "float32") == parity.TOLERANCE["float32"]
    assert parity.engine_tolerance(half, "float32") == parity.TOLERANCE["bfloat16"]
    assert parity.engine_tolerance(Order("float32", format="gguf"), "bfloat16") == parity.TOLERANCE["float32"]


def test_an_adapter_of_a_run_without_one_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["export", f"run={run}", "--adapter"]) == 2
    assert "--adapter" in capsys.readouterr().err


@pytest.mark.parametrize("quantize", [None, "q8_0"])
def test_a_gguf_file_is_the_learners_with_a_modelfile_and_lines_that_use_it(
    run: Path, quantize: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gguf")
    asked = ["--quantize", quantize] if quantize else ["--dtype", "float32"]
    assert cli_code(["export", f"run={run}", "--format", "gguf", *asked, "--json"]) == 0
    out = capsys.readouterr()
    result = json.loads(out.out)
    folder, file = Path(result["path"]), f"tiny-{quantize.upper() if quantize else 'F32'}.gguf"
    assert folder.name == f"step_000002-gguf-{quantize or 'f32'}"
    assert {p.name for p in folder.iterdir()} == {file, "Modelfile", "README.md"}
    assert f"FROM ./{file}" in (folder / "Modelfile").read_text()
    found, installed = result["parity"], find_spec("xllamacpp") is not None
    assert found["transformers"] <= (0.1 if quantize else 1e-6)
    assert (found["engine"] is not None) == installed == (found["engine_name"] == "llama.cpp")
    card = (folder / "README.md").read_text()
    assert f"llama-server -m {folder}/{file}" in out.err
    for line in (f"llama-server -m {folder.name}/{file}", "ollama create tiny -f Modelfile", f"gguf_file='{file}'"):
        assert line in card
    assert str(folder) not in card  # it goes where its folder goes
    assert cli_code(["export", f"run={run}", "--format", "gguf", *asked, "-q"]) == 0  # in its place


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "library"), [("int8", "torchao"), ("int4", "bitsandbytes")])
def test_packed_weights_are_safetensors_that_are_read_back_with_their_noise_said(
    run: Path, bits: str, library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    assert cli_code(["export", f"run={run}", "--quantize", bits, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    folder = Path(result["path"])
    assert result["dtype"] == bits
    assert 1e-3 < result["parity"]["transformers"] < result["parity"]["tolerance"] == parity.TOLERANCE[bits]
    assert f"Packing into {bits} is what most of it comes from" in (folder / "README.md").read_text()
    assert (result["parity"]["engine"] is not None) == (bits == "int8")  # vLLM does not read the other
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".json", ".jinja", ".md"}
    whole = (run / "checkpoints/step_000002/model/model.safetensors").stat().st_size
    assert (folder / "model.safetensors").stat().st_size < whole / {"int8": 3, "int4": 5}[bits]
    assert cli_code(["harness", f"run={run}", "--tasks", "none"]) == 2  # it is no export for what measures models
    assert "it has no export yet" in capsys.readouterr().err


def test_orders_that_cannot_be_are_refused_before_anything_is_loaded(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "_learner", lambda subject: pytest.fail("the learner was loaded"))
    for asked, said in (
        (["--format", "onnx"], "allowed are safetensors, gguf"),
        (["--quantize", "q8_0"], "allowed with --format safetensors are int8, int4"),
        (["--quantize", "int4", "--format", "gguf"], "allowed with --format gguf are q8_0"),
        (["--public"], "--push OWNER/NAME, which is not given"),
    ):
        assert cli_code(["export", f"run={run}", *asked]) == 2
        assert said in capsys.readouterr().err
    assert not (run / "export").exists()


def test_layers_that_nothing_packs_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchao")
    model = save_model(tmp_path / "gpt2", "gpt2", seed=1, tied=True)
    with pytest.raises(UserError, match="--quantize=int8: gpt2 models have no layers that can be packed"):
        load_quantized(Pretrained(str(model)), "int8", torch.bfloat16, "auto", torch.device("cpu"), "--quantize")


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


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_of_two_exports_at_once_none_writes_into_the_others_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool, locks: bool
) -> None:
    final, names = tmp_path / "out", itertools.count()
    final.mkdir()
    if not locks:
        monkeypatch.setattr(export, "lock", lambda folder, *, wait: False)
        monkeypatch.setattr(export.platform, "node", lambda: f"host{next(names)}")

    def drafted() -> Any:
        return export._drafted(final, final, inside=inside)

    with drafted() as first:
        (first / "half").touch()
        if locks:
            with pytest.raises(UserError, match=f"{final}: another `opd export` is writing it"), drafted():
                pass
        else:
            with drafted() as second:
                assert list(second.iterdir()) == []
        assert [p.name for p in first.iterdir()] == ["half"]
        export._put(first, final)
        if locks and not inside:
            with drafted() as next_one:  # the first has its name, and has not ended
                (next_one / "other").touch()
    assert [p.name for p in final.iterdir() if not p.name.startswith(export.DRAFT)] == ["half"]
    assert [p for p in tmp_path.rglob("*") if export.DRAFT in p.name] == []
    (tmp_path / f".out{export.DRAFT}" / "killed").mkdir(parents=True)
    with export._drafted(final, final, inside=False) as again:
        assert list(again.iterdir()) == []
