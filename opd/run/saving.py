"""Writing a checkpoint: to a temporary name, proven by reading it back, and only then in the place of older ones."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from opd.devices.team import Team, first_rank
from opd.disk import writing
from opd.learner.student import Student
from opd.models.digests import vocabulary_digest
from opd.models.finite import not_finite
from opd.models.shards import collected
from opd.places import share
from opd.run import manifest
from opd.run.checkpoint import PREFIX, STATE, Checkpoint, alone, checkpoints, damage
from opd.teaching import Stateful
from opd.types import RunError

DRAFT = re.compile(rf"\.{PREFIX}\d+(-\d+)?\.writing")
"""Names of folders in which a checkpoint is written or removed; those that a killed run left are removed."""
Named = Mapping[str, torch.Tensor]


def save(
    folder: Path,
    step: int,
    student: Student,
    judges: Mapping[str, object],
    tokenizer: Any,
    keep: int,
    written: Mapping[str, Stateful] | None = None,
    best: int | None = None,
) -> Checkpoint:
    """Write the checkpoint of `step` done steps, then remove what `keep` good ones supersede.

    All ranks hand in what they have, and the first one writes. `written`: rollouts, whose numbers may be NaN. `best`:
    the step of a checkpoint that stays, be it superseded or not.

    Raises:
        RunError: A number of student, optimizer or judges is not finite, or the disk gives back something else. What
            was there before is as it was.
    """
    team = student.team
    learned = {"model": collected(student.saved(), team), "optimizer": collected(_states(student), team)}
    for name, judge in judges.items():
        if isinstance(judge, Stateful):
            learned[name] = collected(judge.state().items(), team)
    tensors = {name: collected(rows.state().items(), team) for name, rows in (written or {}).items()}
    tensors["random"] = _random_states(team)
    state = {
        "step": step, "optimizer_steps": student.steps, "python_random": random.getstate(), "proven": True,
        "base": {**vocabulary_digest(tokenizer), **student.base_digests},
        "stepped": stepped(student),
    }  # fmt: skip
    return first_rank(team, lambda: _write(folder, state, student, learned, tensors, tokenizer, keep, best))


def size(student: Student, judges: Mapping[str, object]) -> int:
    """Bytes of a checkpoint after the first step: the weights, two means of each that is trained, what judges learn."""
    tensors = [tensor for _, tensor in student.saved()]
    tensors += 2 * list(student.params)
    tensors += [t for judge in judges.values() if isinstance(judge, Stateful) for t in judge.state().values()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _write(
    folder: Path,
    state: Mapping[str, Any],
    student: Student,
    learned: Mapping[str, Named],
    tensors: Mapping[str, Named],
    tokenizer: Any,
    keep: int,
    best: int | None,
) -> Checkpoint:
    for name, values in learned.items():
        if problem := not_finite(values.items()):
            raise RunError(f"no checkpoint was written: of {name} {problem} is not finite; {student.optim.remedy}")
    made = Checkpoint(folder / f"{PREFIX}{state['step']:06d}")
    with _proven(made.path) as temporary:
        student.model.save_pretrained(temporary / "model", state_dict=dict(learned["model"]))
        tokenizer.save_pretrained(temporary / "model")
        for name, values in (*learned.items(), *tensors.items()):
            if name != "model":
                save_file(dict(values), temporary / f"{name}.safetensors")
        (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
        share(temporary, like=temporary / STATE)
    _remove_superseded(made, keep, best)
    return made


@contextmanager
def _proven(final: Path) -> Iterator[Path]:
    """A folder to write in, which is proven in the end and put in its place; nothing is left of one that fails."""
    with writing(final):
        temporary = _draft(final.parent, final.name)
        try:
            yield temporary
            manifest.write(temporary)
            _sync(temporary)
            if problem := manifest.difference(temporary):
                raise RunError(f"{final}: the disk does not give back what was written ({problem}); use another one")
            _put(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_path(final.parent)


def _draft(folder: Path, name: str) -> Path:
    """A new folder to write in; what killed runs left is removed, and what cannot be is not in the way."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{PREFIX}*.writing"):
        if DRAFT.fullmatch(left.name) and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    made = _hidden(folder / name)
    made.mkdir()
    return made


def _hidden(place: Path) -> Path:
    """A name that nothing has, for a checkpoint that is not there yet, or no longer."""
    names = chain([f".{place.name}.writing"], (f".{place.name}-{i}.writing" for i in count(2)))
    return next(place.with_name(n) for n in names if not os.path.lexists(place.with_name(n)))


def _put(temporary: Path, final: Path) -> None:
    """Give a finished checkpoint its name: an older one that has it goes, be it read or not, and nothing else."""
    if Checkpoint(final) in checkpoints(final.parent):
        shutil.rmtree(final)
    if os.path.lexists(final):
        raise RunError(f"{final}: the next checkpoint gets this name, and what is there is none; move it elsewhere")
    temporary.rename(final)


def _remove_superseded(written: Checkpoint, keep: int, best: int | None) -> None:
    """Remove the checkpoints before the newest `keep` good ones up to the one just written, but for the best one.

    One that somebody reads stays until the next time.

    The one just written was proven. Those of later steps were passed over as damaged when this run began: they are
    written again, and count for nothing.
    """
    good = 1
    for old in reversed([c for c in checkpoints(written.path.parent) if c.step < written.step]):
        if good < keep:
            good += damage(old, read=None) is None
        elif old.step != best:
            with suppress(BlockingIOError):
                _remove(old)


def _remove(old: Checkpoint) -> None:
    """Remove a checkpoint, all of it at once for those that look for one; BlockingIOError where somebody reads it."""
    with alone(old):
        hidden = old.path.rename(_hidden(old.path))
    shutil.rmtree(hidden)


def stepped(student: Student) -> list[int]:
    """Places of the weights that the optimizer has taken a step with: of others it knows nothing yet."""
    states = [student.optimizer.state.get(p, {}) for p in student.params]
    return [i for i, state in enumerate(states) if state and state["step"].item()]


def _states(student: Student) -> Iterator[tuple[str, torch.Tensor]]:
    """The optimizer's, by the weight's place and what they are."""
    for i in stepped(student):
        for key, value in student.optimizer.state[student.params[i]].items():
            yield f"{i}.{key}", value.contiguous()


def _random_states(team: Team) -> dict[str, torch.Tensor]:
    """Of each rank; those of all but the first one with its number."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    every = enumerate(team.gather(states))
    return {f"{name}.{rank}" if rank else name: state for rank, own in every for name, state in own.items()}


def _sync(folder: Path) -> None:
    """Make sure that everything under `folder` is on the disk, so that it is read from there."""
    for path in [folder, *folder.rglob("*")]:
        _sync_path(path)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if path.is_file() and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # or what is read back is what memory holds
    finally:
        os.close(descriptor)
