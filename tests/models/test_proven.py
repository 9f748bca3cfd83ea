"""Whoever reads a model reads all of it: what is missing, too much, of another shape or not finite is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from opd.commands.subject import checkpoint_weights
from opd.learner.config import Lora, StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models.files import check_files
from opd.needs import Needs
from opd.rollout.hf import Hf
from opd.teachers.cached import CachedTeacher
from opd.teachers.cross import CrossTeacher
from opd.teachers.local import LocalTeacher
from opd.teachers.own import SelfTeacher
from opd.teachers.routed import RoutedTeacher
from opd.teaching import Pupil
from opd.types import Pretrained, UserError
from tests.tiny import char_tokenizer, rollouts, save_model

UP = "model.layers.1.mlp.up_proj.weight"
Tensors = dict[str, torch.Tensor]


def infinite(held: Tensors) -> Tensors:
    """One number in a row that a check of a few tokens does not look at."""
    held["model.embed_tokens.weight"][44, 3] = math.inf
    return held


WHAT: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "missing": (lambda held: {k: t for k, t in held.items() if k != UP}, f"its weights lack {UP}"),
    "missing head": (
        lambda held: {k: t for k, t in held.items() if "lm_head" not in k}, "its weights lack lm_head.weight",
    ),
    "of another shape": (lambda held: held | {UP: held[UP][:1].clone()}, f"its weights have {UP} as [1, 64]"),
    "a layer too many": (
        lambda held: held | {UP.replace(".1.", ".2."): held[UP].clone()}, "its weights have model.layers.2.mlp.up_proj",
    ),
    "an unknown bias": (
        lambda held: held | {UP.replace("weight", "bias"): held[UP][:, 0].clone()}, f"its weights have {UP[:-6]}bias",
    ),
    "NaN": (lambda held: held | {UP: held[UP] * math.nan}, f"{UP} (8192 of 8192 numbers, NaN) is not finite"),
    "infinite": (infinite, "model.embed_tokens.weight (1 of 2880 numbers, infinite) is not finite"),
}  # fmt: skip


def student(folder: Path) -> Any:
    return Student.load(StudentConfig(str(folder), dtype="float32"), Optim(), 1.0)


def under_adapters(folder: Path) -> Any:
    return Student.load(StudentConfig(str(folder), dtype="float32", lora=Lora(rank=2)), Optim(), 1.0)


def local(folder: Path) -> LocalTeacher:
    return LocalTeacher(model=str(folder), dtype="float32", prompt="student")


PUPIL = Pupil(char_tokenizer(), 45)


def cached(folder: Path) -> Any:
    scorer = CachedTeacher(teacher=local(folder), path=str(folder / "cache")).start(PUPIL)
    return scorer.score(rollouts([(3, 5)]), Needs(logprobs=True))


def frozen(folder: Path) -> Any:
    """The student's own weights as its teacher, without a learner (as in `opd eval`)."""
    return SelfTeacher(context="{prompt} 1").start(Pupil(char_tokenizer(), 45, Pretrained(str(folder))))


def cross(folder: Path) -> Any:
    return CrossTeacher(model=str(folder), dtype="float32").start(PUPIL)


def pushed(folder: Path) -> Any:
    """The model of a checkpoint that an engine is handed."""
    settings: Any = SimpleNamespace(student=StudentConfig(str(folder), dtype="float32"))
    return list(checkpoint_weights(settings, folder))


WHO: dict[str, Callable[[Path], Any]] = {
    "student": student,
    "student under adapters": under_adapters,
    "teacher or reference": lambda folder: local(folder).start(PUPIL),
    "teacher in 8 bits": lambda folder: replace(local(folder), quantization="int8").start(PUPIL),
    "teacher in 4 bits": lambda folder: replace(local(folder), quantization="int4").start(PUPIL),
    "teacher behind a cache": cached,
    "routed teacher": lambda folder: RoutedTeacher(teachers={"a": local(folder)}, routes={"x": "a"}).start(PUPIL),
    "teacher of another tokenizer": cross,
    "the student as its teacher": frozen,
    "engine": lambda folder: Hf(dtype="float32").start(str(folder), max_len=32, seed=0),
    "checkpoint for an engine": pushed,
    "vLLM": lambda folder: check_files(Pretrained(str(folder))),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("whole"), "llama", seed=0, tied=False)


@pytest.mark.parametrize("who", WHO)
def test_a_whole_model_is_read_by(whole: Path, tmp_path: Path, who: str) -> None:
    read = WHO[who](shutil.copytree(whole, tmp_path / "model"))
    assert (read is None) == (who == "vLLM")  # which is only looked at


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("who", WHO)
def test_a_model_is_refused_by_name(whole: Path, tmp_path: Path, who: str, what: str) -> None:
    folder, (change, says) = shutil.copytree(whole, tmp_path / "model"), WHAT[what]
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError) as error:
        WHO[who](folder)
    assert says in str(error.value)
    assert str(folder) in str(error.value)


def test_what_an_architecture_never_had_is_not_read(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    extra = {"vision_tower.layers.0.weight": torch.full((2,), math.nan), "value_head.weight": torch.zeros(2)}
    save_file(load_file(folder / "model.safetensors") | extra, folder / "model.safetensors", {"format": "pt"})
    read = {name for name, _ in student(folder).model.named_parameters()}
    assert read == load_file(whole / "model.safetensors").keys()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3_moe", "opt"])
def test_a_whole_model_is_let_through_to_vllm(tmp_path: Path, kind: str, tied: bool) -> None:
    folder = save_model(tmp_path, kind, seed=0, tied=tied)
    check_files(Pretrained(str(folder)))
    held = load_file(folder / "model.safetensors")
    if tied:  # many checkpoints hold the head once more
        name = next(n for n in held if "embed_tokens" in n or "wte" in n)
        save_file(held | {"lm_head.weight": held[name].clone()}, folder / "model.safetensors", {"format": "pt"})
        check_files(Pretrained(str(folder)))


def test_what_is_no_folder_of_tensors_is_left_to_vllm(whole: Path, tmp_path: Path) -> None:
    check_files(Pretrained("somebody/on-a-hub"))
    folder = shutil.copytree(whole, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="no causal language model could be loaded"):
        check_files(Pretrained(str(folder)))


ADAPTER = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
ADAPTERS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "missing": (lambda held: {k: t for k, t in held.items() if k != ADAPTER}, f"{ADAPTER} is in one of them only"),
    "unexpected": (lambda held: held | {"odd": torch.zeros(2)}, "odd is in one of them only"),
    "of another shape": (lambda held: held | {ADAPTER: held[ADAPTER][:, :5].clone()}, "size mismatch"),
    "NaN": (lambda held: held | {ADAPTER: held[ADAPTER] * math.nan}, "numbers, NaN) is not finite"),
}


@pytest.mark.parametrize("what", ADAPTERS)
def test_an_adapter_is_refused_by_name(whole: Path, tmp_path: Path, what: str) -> None:
    folder, (change, says) = tmp_path / "adapter", ADAPTERS[what]
    under_adapters(whole).model.save_pretrained(folder)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2
    save_file(change(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
    config = StudentConfig(str(whole), dtype="float32", lora=Lora(rank=2))
    with pytest.raises(UserError) as error:
        Student.load(config, Optim(), 1.0, str(folder))
    assert says in str(error.value)
    assert str(folder) in str(error.value)
