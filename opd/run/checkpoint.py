"""Checkpoints: model or adapter, optimizer, step and random states, written to a temporary name, synced and renamed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from opd.devices.team import Team, first_rank
from opd.learner.config import StudentConfig
from opd.learner.student import Student
from opd.models.digests import shapes, vocabulary_digest
from opd.models.shards import collected, part
from opd.teaching import Scorer, Stateful
from opd.types import Pretrained, UserError

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

    def tensors(self, name: str) -> dict[str, torch.Tensor] | None:
        """What was saved under a name; None: nothing, as an earlier opd wrote it, or a run without it."""
        file = self.path / f"{name}.safetensors"
        return load_file(file) if file.is_file() else None


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
        state = json.loads(place.read_text())
        missing = {"step", "optimizer_steps", "python_random"} - state.keys()
        if missing:
            return f"state.json lacks {min(missing)}"
        for name, kind in (("optimizer_steps", int), ("base", dict)):
            if not isinstance(state.get(name, kind()), kind):
                return f"state.json: {name} is {state[name]!r}"
        random.Random().setstate(_python_random(state))
        for folder, name in ((checkpoint.path, "optimizer"), (checkpoint.path, "random"), (checkpoint.model, "*")):
            if not list(folder.glob(f"{name}.safetensors")):
                return f"{folder.name}: there is no {name}.safetensors"
        if not any((checkpoint.model / name).is_file() for name in ("config.json", "adapter_config.json")):
            return "model: there is no config.json"
        for place in sorted(checkpoint.path.rglob("*.json")):
            json.loads(place.read_text())
        tensors: dict[Path, set[str]] = {}
        for place in sorted(checkpoint.path.rglob("*.safetensors")):
            with safe_open(place, framework="pt") as file:
                tensors[place] = set(file.keys())
        place = checkpoint.path / "random.safetensors"
        torch.Generator().set_state(load_file(place)["cpu"])
        return _lost_shard(checkpoint.model, tensors)
    except Exception as e:  # whatever a library says of a file that it cannot read
        return f"{place.name}: {(str(e) or type(e).__name__).splitlines()[0]}"


def _lost_shard(model: Path, tensors: Mapping[Path, set[str]]) -> str | None:
    """Which of a model's files its index names and is not there with its tensors; a lost index counts."""
    if any(model / f"{name}.safetensors" in tensors for name in ("model", "adapter_model")):
        return None
    index = model / "model.safetensors.index.json"
    if not index.is_file():
        return f"model: there is neither model.safetensors nor {index.name}"
    for name, file in json.loads(index.read_text())["weight_map"].items():
        if name not in tensors.get(model / file, ()):
            return f"model: {file} is lost, or {name} in it"
    return None


def save(
    folder: Path, step: int, student: Student, judges: Mapping[str, object], tokenizer: Any, keep: int
) -> Checkpoint:
    """Write the checkpoint of `step` done steps, then remove what `keep` whole ones supersede.

    All ranks hand in what they have, and the first one writes.
    """
    team = student.team
    model = collected(student.saved(), team)
    tensors = {"optimizer": collected(_optimizer_tensors(student), team), "random": _random_states(team)}
    for name, judge in judges.items():
        if isinstance(judge, Stateful):
            tensors[name] = collected(judge.state().items(), team)
    return first_rank(team, lambda: _write(folder, step, student, model, tensors, tokenizer, keep))


def _write(
    folder: Path,
    step: int,
    student: Student,
    model: Mapping[str, torch.Tensor],
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    tokenizer: Any,
    keep: int,
) -> Checkpoint:
    final = folder / f"{PREFIX}{step:06d}"
    temporary = folder / f".{final.name}.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    student.model.save_pretrained(temporary / "model", state_dict=dict(model))
    tokenizer.save_pretrained(temporary / "model")
    for name, values in tensors.items():
        save_file(dict(values), temporary / f"{name}.safetensors")
    state = {
        "step": step, "optimizer_steps": student.steps, "python_random": random.getstate(),
        "base": {**vocabulary_digest(tokenizer), **student.base_digests},
    }  # fmt: skip
    (temporary / "state.json").write_text(json.dumps(state))
    _sync(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _sync_path(folder)
    written = Checkpoint(final)
    _remove_superseded(written, keep)
    return written


def _remove_superseded(written: Checkpoint, keep: int) -> None:
    """Remove the checkpoints before the newest `keep` whole ones up to the one just written.

    Those of later steps were passed over as damaged when this run began: they are written again, and count for nothing.
    """
    whole = 1
    for old in reversed([c for c in checkpoints(written.path.parent) if c.step < written.step]):
        if whole >= keep:
            shutil.rmtree(old.path)
        else:
            whole += damage(old) is None


def restore(checkpoint: Checkpoint, student: Student) -> None:
    """Bring optimizer, counters and random states back; the weights were read by `Student.load`.

    Raises:
        UserError: The optimizer's state is of another student.
    """
    with student.present(), safe_open(checkpoint.path / "optimizer.safetensors", framework="pt") as file:
        for key in sorted(file.keys()):
            index, _, name = key.partition(".")
            p = student.params[int(index)] if index.isdecimal() and int(index) < len(student.params) else None
            if p is None or (name != "step" and file.get_slice(key).get_shape() != list(p.shape)):
                raise UserError(
                    f"{checkpoint.path}: optimizer.safetensors is of another student ({key} does not fit this one); "
                    "put back the student that the run began with, or begin a new run"
                )
            student.optimizer.state[p][name] = (
                file.get_tensor(key).to(p.device)  # the fused optimizer wants it there
                if name == "step"
                else part(file.get_slice(key).__getitem__, p)
            )
            student.states.leave([student.optimizer.state[p][name]])  # one by one: all may be more than the device has
    for state in student.optimizer.state.values():
        if lost := {"step", "exp_avg", "exp_avg_sq"} - state.keys():
            raise UserError(f"{checkpoint.path}: optimizer.safetensors lacks {min(lost)} of a weight; take another one")
    state = json.loads((checkpoint.path / "state.json").read_text())
    student.steps = state["optimizer_steps"]
    random.setstate(_python_random(state))
    states = load_file(checkpoint.path / "random.safetensors")
    rank = f".{student.team.rank}" if student.team.rank else ""
    if f"cpu{rank}" in states:  # else there are more ranks now: a new one goes on with what it has drawn at its start
        torch.set_rng_state(states[f"cpu{rank}"])
    if f"cuda{rank}" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[f"cuda{rank}"])


def check_start(checkpoint: Checkpoint, student: StudentConfig, tokenizer: Any) -> None:
    """See, before any weight is read, that a checkpoint is of the student that the config names.

    Raises:
        UserError: An adapter for one that trains all weights, or the reverse; other shapes, or another tokenizer.
    """
    adapter = (checkpoint.model / "adapter_config.json").is_file()
    if adapter != (student.lora is not None):
        raise UserError(
            f"student.lora: {checkpoint.path} holds {'an adapter' if adapter else 'all weights'}, and the config says "
            "otherwise; put the setting back that the run began with, or begin a new run"
        )
    base = student.pretrained
    check_base(checkpoint, base.path, vocabulary_digest(tokenizer))
    if not adapter:
        now, then = shapes(base), shapes(Pretrained(str(checkpoint.model), base.trust_remote_code))
        if odd := sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)):
            raise _other_base(checkpoint, base.path, odd)


def check_base(checkpoint: Checkpoint, model: str, now: Mapping[str, str]) -> None:
    """Raise UserError where what a checkpoint relies on is not what it was.

    Args:
        checkpoint: Where `save` wrote what it was; nothing is checked where an earlier opd wrote it.
        model: Name of the model that the run began with.
        now: Digests of `opd.models.digests`, by name; those of other names (another transformers) are not compared.
    """
    then = json.loads((checkpoint.path / "state.json").read_text()).get("base", {})
    if odd := [name for name, digest in now.items() if then.get(name, digest) != digest]:
        raise _other_base(checkpoint, model, odd)


def _other_base(checkpoint: Checkpoint, model: str, odd: Sequence[str]) -> UserError:
    more = f" and {len(odd) - 1} more are" if len(odd) > 1 else " is"
    return UserError(
        f"student.model={model}: this is not the model that the run began with, whose {odd[0]}{more} not the same, and "
        f"{checkpoint.path} is of no use on another; put that model back, or begin a new run"
    )


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


def _python_random(state: Mapping[str, Any]) -> tuple[Any, ...]:
    """The state of Python's generator, in whose place JSON has lists."""
    version, numbers, gauss = state["python_random"]
    return version, tuple(numbers), gauss


def _random_states(team: Team) -> dict[str, torch.Tensor]:
    """Of each rank; those of all but the first one with its number."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    every = enumerate(team.gather(states))
    return {f"{name}.{rank}" if rank else name: state for rank, own in every for name, state in own.items()}


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
