"""A run's checkpoints are of the model that it began with: on another one they are refused, not used."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from opd.run import manifest
from opd.run.checkpoint import checkpoints
from tests.tiny import char_tokenizer, cli_code, save_config, save_model

COMMANDS = (["train", "--resume", "steps=3"], ["eval"], ["export"], ["export", "--adapter"])


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> dict[str, Path]:
    """Finished runs of two steps, of all weights and of adapters, on models that `place` copies."""
    folder, done = tmp_path_factory.mktemp("trained"), {}
    for name, extra in (("full", []), ("lora", ["student.lora.rank=4"])):
        config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
        done[name] = folder / name
        short = ["steps=2", "eval.every=0", "preflight.prompts=2", "eval.size=2"]
        assert cli_code(["train", f"conf={config}", f"run={done[name]}", "-q", *short, *extra]) == 0
    return done


@pytest.fixture
def place(trained: dict[str, Path], student_dir: Path, tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Copies a run and the model that it began with, which may be changed then; returns both."""

    def copied(name: str) -> tuple[Path, Path]:
        run, base = shutil.copytree(trained[name], tmp_path / name), shutil.copytree(student_dir, tmp_path / "base")
        config = run / "config.yaml"
        config.write_text(config.read_text().replace(str(student_dir), str(base)))
        return run, base

    return copied


def refused(run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """See that every command refuses the run in one line with these words, and changes nothing of it."""
    before = written(run)
    for command, *rest in COMMANDS[: 4 if run.name == "lora" else 3]:
        capsys.readouterr()
        assert cli_code([command, f"run={run}", "-q", *rest]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("opd: ")
        assert all(word in line for word in words), line
    assert written(run) == before


def written(folder: Path) -> dict[Path, int]:
    """All files in a folder, and when they were written."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def other_seed(base: Path) -> None:
    save_model(base, "qwen3", seed=77, tied=True)


def one_weight(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    name = next(n for n in weights if "layers.1" in n and "norm" in n)
    save_file(weights | {name: weights[name] * 1.1}, base / "model.safetensors", metadata={"format": "pt"})


def other_tokens(base: Path) -> None:
    char_tokenizer("1023456789+-*=;: abcdefghijklmnopqrstuvwxyz").save_pretrained(base)


def other_shape(base: Path) -> None:
    save_model(base, "qwen3", seed=1, tied=True, hidden=128)


def other_kind(base: Path) -> None:
    save_model(base, "gpt2", seed=1, tied=True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lora", other_seed), ("lora", one_weight), ("lora", other_tokens), ("lora", other_shape),
        ("full", other_tokens), ("full", other_shape), ("full", other_kind),
    ],
)  # fmt: skip
def test_a_run_on_another_base_than_it_began_with_is_refused(
    place: Callable[[str], tuple[Path, Path]], name: str, change: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, base = place(name)
    change(base)
    refused(run, capsys, str(base), "put ")


def test_the_same_base_elsewhere_in_other_files_is_the_same(place: Callable[[str], tuple[Path, Path]]) -> None:
    run, base = place("lora")
    model = AutoModelForCausalLM.from_pretrained(base)
    (base / "model.safetensors").unlink()
    model.to(torch.bfloat16).save_pretrained(base, max_shard_size="50KB")
    assert cli_code(["export", f"run={run}", "-q", "--dtype", "float32"]) == 0
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=3"]) == 0


@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_checkpoint_that_says_nothing_of_its_base_still_works(
    place: Callable[[str], tuple[Path, Path]], name: str
) -> None:
    run, _ = place(name)
    place = checkpoints(run / "checkpoints")[-1].path
    edit(place / "state.json", lambda state: state.pop("base"))
    manifest.write(place)
    assert cli_code(["export", f"run={run}", "-q"]) == 0
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=3"]) == 0


@pytest.mark.parametrize("change", [{"r": 8}, {"target_modules": ["q_proj"]}, {"peft_type": "NONE"}])
def test_an_adapter_whose_config_is_not_its_own_is_refused(
    place: Callable[[str], tuple[Path, Path]], change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = place("lora")
    model = checkpoints(run / "checkpoints")[-1].model
    edit(model / "adapter_config.json", lambda config: config.update(change))
    manifest.write(model.parent)  # as if it had been written so
    refused(run, capsys, str(model), "adapter")


@pytest.mark.parametrize("change", ["rank: 8", "alpha: 1.5"])
def test_a_config_that_says_another_adapter_than_the_checkpoint_has_is_refused(
    place: Callable[[str], tuple[Path, Path]], change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = place("lora")
    config, name = run / "config.yaml", change.partition(":")[0]
    before, _, after = config.read_text().partition("\n  lora:\n")
    config.write_text(f"{before}\n  lora:\n{re.sub(rf'(?m)^    {name}: .*$', f'    {change}', after, count=1)}")
    refused(run, capsys, f"student.lora.{name}=", "put the setting back")


def test_an_adapter_is_no_checkpoint_of_all_weights(
    place: Callable[[str], tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = place("lora")
    config = run / "config.yaml"
    text = config.read_text()
    start = text.index("lora:")
    end = text.index("gradient_checkpointing", start)
    config.write_text(f"{text[:start]}lora: null\n  {text[end:]}")
    refused(run, capsys, "student.lora")
