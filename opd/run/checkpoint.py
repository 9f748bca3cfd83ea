"""Checkpoints: model or adapter, optimizer, step and random states, written to a temporary name, synced and renamed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from opd.learner.student import Student
from opd.protocols import Scorer, Stateful
from opd.types import UserError

PREFIX = "step_"


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint folder."""

    path: Path

    @property
    def step(self) -> int:
        """Loop steps that were done when it was written."""
        return int(self.path.name.removeprefix(PREFIX))

    @property
    def model(self) -> Path:
        """The model, or its adapter, in Hugging Face layout."""
        return self.path / "model"


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Finished checkpoints, oldest first; neither what a killed run left half-written nor folders of other names."""
    named = [p for p in folder.glob(f"{PREFIX}*") if p.name.removeprefix(PREFIX).isdecimal()]
    return sorted((Checkpoint(p) for p in named if (p / "state.json").is_file()), key=lambda c: c.step)


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of a run that can be read, None without one, and what is wrong with newer ones."""
    damaged: list[str] = []
    for checkpoint in reversed(checkpoints(folder)):
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint, damaged
        damaged.append(f"{checkpoint.path} is damaged ({problem})")
    return None, damaged


def damage(checkpoint: Checkpoint) -> str | None:
    """What cannot be read of a checkpoint; None where it is whole, as far as names, sizes and headers tell."""
    place = checkpoint.path / "state.json"
    try:
        missing = {"step", "optimizer_steps", "python_random"} - json.loads(place.read_text()).keys()
        if missing:
            return f"state.json lacks {min(missing)}"
        for folder, name in ((checkpoint.path, "optimizer"), (checkpoint.path, "random"), (checkpoint.model, "*")):
            if not list(folder.glob(f"{name}.safetensors")):
                return f"{folder.name}: there is no {name}.safetensors"
        if not any((checkpoint.model / name).is_file() for name in ("config.json", "adapter_config.json")):
            return "model: there is no config.json"
        for place in sorted(checkpoint.path.rglob("*.safetensors")):
            with safe_open(place, framework="pt"):
                pass
        for place in sorted(checkpoint.path.rglob("*.json")):
            json.loads(place.read_text())
    except Exception as e:
        return f"{place.name}: {(str(e) or type(e).__name__).splitlines()[0]}"
    return None


def save(
    folder: Path, step: int, student: Student, judges: Mapping[str, Scorer], tokenizer: Any, keep: int
) -> Checkpoint:
    """Write the checkpoint of `step` done steps, then remove all but the newest `keep`."""
    final = folder / f"{PREFIX}{step:06d}"
    temporary = folder / f".{final.name}.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    student.model.save_pretrained(temporary / "model")
    tokenizer.save_pretrained(temporary / "model")
    save_file(dict(_optimizer_tensors(student)), temporary / "optimizer.safetensors")
    save_file(_random_states(), temporary / "random.safetensors")
    for name, judge in judges.items():
        if isinstance(judge, Stateful):
            save_file(judge.state(), temporary / f"{name}.safetensors")
    state = {"step": step, "optimizer_steps": student.steps, "python_random": random.getstate()}
    (temporary / "state.json").write_text(json.dumps(state))
    _sync(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _sync_path(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old.path)
    return Checkpoint(final)


def restore(checkpoint: Checkpoint, student: Student) -> None:
    """Bring optimizer, counters and random states back; the weights were read by `Student.load`."""
    tensors = load_file(checkpoint.path / "optimizer.safetensors")
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        p = student.params[int(index)]
        student.optimizer.state[p][name] = value.to(p.device)  # `step` too: the fused optimizer wants it there
    state = json.loads((checkpoint.path / "state.json").read_text())
    student.steps = state["optimizer_steps"]
    version, numbers, gauss = state["python_random"]
    random.setstate((version, tuple(numbers), gauss))
    states = load_file(checkpoint.path / "random.safetensors")
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def restore_judges(checkpoint: Checkpoint, judges: Mapping[str, Scorer]) -> None:
    """Bring back what judges that learn (a moving average) had learned."""
    for name, judge in judges.items():
        if isinstance(judge, Stateful):
            if not (checkpoint.path / f"{name}.safetensors").is_file():
                raise UserError(f"{name}: {checkpoint.path} holds no average of it: the run began with another {name}")
            judge.load_state(load_file(checkpoint.path / f"{name}.safetensors"))


def _optimizer_tensors(student: Student) -> Iterator[tuple[str, torch.Tensor]]:
    for i, p in enumerate(student.params):
        for key, value in student.optimizer.state.get(p, {}).items():
            yield f"{i}.{key}", value.contiguous()


def _random_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _sync(folder: Path) -> None:
    """Make sure that everything under `folder` is on the disk before it gets its final name."""
    for path in [folder, *folder.rglob("*")]:
        _sync_path(path)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
