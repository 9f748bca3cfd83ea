"""Going on from a checkpoint: what it holds is compared with what is needed, by name, before it is used."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from opd.devices.team import each_rank
from opd.hints import shown
from opd.learner.config import Lora, StudentConfig
from opd.learner.student import Student
from opd.models.digests import shapes, vocabulary_digest
from opd.models.finite import not_finite
from opd.models.shards import own, part
from opd.plain import plain
from opd.run.checkpoint import Checkpoint
from opd.teaching import Stateful
from opd.types import Pretrained, UserError

ADAM = ("exp_avg", "exp_avg_sq", "step")
"""What the optimizer keeps of each weight: two means of its gradients, and the number of its steps."""


def restore(checkpoint: Checkpoint, student: Student) -> None:
    """Bring optimizer, counters and random states back; the weights were read by `Student.load`.

    Raises:
        UserError: The optimizer's state is of another student, or not all of it is there, nor are random states.
    """
    each_rank(student.team, lambda: _restore(checkpoint, student))


def _restore(checkpoint: Checkpoint, student: Student) -> None:
    try:
        state = checkpoint.state()
        _restore_optimizer(checkpoint.path / "optimizer.safetensors", student, state)
        student.steps, student.taken = int(state["optimizer_steps"]), checkpoint.step
        version, numbers, gauss = state["python_random"]
        random.setstate((version, tuple(numbers), gauss))
        _restore_torch(checkpoint.path / "random.safetensors", student.team.rank)
    except UserError:
        raise
    except Exception as error:  # of a file that is none of its kind, whatever the library says that reads it
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{checkpoint.path}: there is no going on from it ({why}); take another one") from error


def _restore_optimizer(file: Path, student: Student, state: Mapping[str, Any]) -> None:
    names = [name for name, p in student.model.named_parameters() if p.requires_grad]
    known = {
        f"{i}.{key}": (i, key, [] if key == "step" else list(p.shape))
        for i, p in enumerate(student.params) for key in ADAM
    }  # fmt: skip
    with student.present(), safe_open(file, framework="pt") as tensors:
        there = set(tensors.keys())
        if lost := sorted({f"{i}.{key}" for i in _stepped(student, state) for key in ADAM} - there):
            i, key, _ = known.get(lost[0], (0, lost[0], []))
            raise UserError(f"{file} lacks {key} of {names[i]}; take another checkpoint")
        for key in sorted(there):
            i, name, shape = known.get(key, (0, "", None))
            if tensors.get_slice(key).get_shape() != shape:
                raise UserError(
                    f"{file} is of another student ({key} does not fit this one); put back the student that the run "
                    "began with, or begin a new run"
                )
            p = student.params[i]
            value = (
                tensors.get_tensor(key).to(p.device)  # the fused optimizer wants it there
                if name == "step"
                else part(tensors.get_slice(key).__getitem__, p)
            )
            if problem := not_finite([(f"{name} of {names[i]}", own(value))]):
                raise UserError(f"{file}: {problem} is not finite; take another checkpoint")
            there_now = student.optimizer.state[p].setdefault(name, value)
            with torch.no_grad():  # in its place, be that on the device or away: two sets may be more than there is
                own(there_now).copy_(own(value))


def _stepped(student: Student, state: Mapping[str, Any]) -> Sequence[int]:
    """Places of the weights that the optimizer had to have a state of; as an earlier opd did not say: all it trains."""
    unread = {id(p) for p in student.unread}
    trained = [i for i, p in enumerate(student.params) if id(p) not in unread]
    return list(state.get("stepped", trained if state["optimizer_steps"] else []))


def _restore_torch(file: Path, rank: int) -> None:
    states, of = load_file(file), f".{rank}" if rank else ""
    if "cpu" not in states:
        raise UserError(f"{file} lacks cpu; take another checkpoint")
    if f"cpu{of}" in states:  # else there are more ranks now: a new one goes on with what it has drawn at its start
        torch.set_rng_state(states[f"cpu{of}"])
    if f"cuda{of}" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[f"cuda{of}"])


def restore_judges(checkpoint: Checkpoint, judges: Mapping[str, object]) -> None:
    """Bring back what judges that learn (a moving average) had learned; UserError where it is not theirs.

    Likewise what parts of a source have learned of prompts.
    """
    for name, judge in judges.items():
        if isinstance(judge, Stateful):
            file = checkpoint.path / f"{name}.safetensors"
            if not file.is_file():
                raise UserError(
                    f"{name}: {checkpoint.path} holds nothing that it has learned: the run began with another {name}"
                )
            try:
                judge.load_state(load_file(file))
            except Exception as error:  # each kind of judge has its own state, and says what does not fit
                why = f"lacks {error}" if isinstance(error, KeyError) else f"is not of this {name} ({error})"
                raise UserError(f"{file} {why}; take another checkpoint, or begin a new run") from error


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
    if student.lora is not None:
        _check_adapter(checkpoint, student.lora)
    else:
        now, then = shapes(base), shapes(Pretrained(str(checkpoint.model), base.trust_remote_code))
        if odd := sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)):
            raise _other_base(checkpoint, base.path, odd)


def _check_adapter(checkpoint: Checkpoint, lora: Lora) -> None:
    """Refuse an adapter that is not as the config says: it is read as it is, whatever is said of it."""
    found = plain((checkpoint.model / "adapter_config.json").read_bytes())
    said = {"rank": ("r", lora.rank), "alpha": ("lora_alpha", lora.alpha or lora.rank)}
    said["dropout"] = ("lora_dropout", lora.dropout)
    for name, (key, now) in said.items():
        if isinstance(found, dict) and (then := found.get(key, now)) != now:
            raise UserError(
                f"student.lora.{name}={now}: the adapter in {checkpoint.model} has {shown(then)}; put the setting back "
                "that the run began with, or begin a new run"
            )


def check_base(checkpoint: Checkpoint, model: str, now: Mapping[str, str]) -> None:
    """Raise UserError where what a checkpoint relies on is not what it was.

    Args:
        checkpoint: Where `save` wrote what it was; nothing is compared where an earlier opd wrote it.
        model: Name of the model that the run began with.
        now: Digests of `opd.models.digests`, by name; those of other names (another transformers) are not compared.
    """
    try:
        then = checkpoint.state().get("base", {})
    except ValueError as error:  # it was whole a moment ago: somebody has removed it
        raise UserError(f"{checkpoint.path}: it has changed while it was read ({error}); try again") from error
    if odd := [name for name, digest in now.items() if then.get(name, digest) != digest]:
        raise _other_base(checkpoint, model, odd)


def _other_base(checkpoint: Checkpoint, model: str, odd: Sequence[str]) -> UserError:
    more = f" and {len(odd) - 1} more are" if len(odd) > 1 else " is"
    return UserError(
        f"student.model={model}: this is not the model that the run began with, whose {odd[0]}{more} not the same, and "
        f"{checkpoint.path} is of no use on another; put that model back, or begin a new run"
    )
