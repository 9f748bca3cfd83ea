"""A checkpoint that is written and read back before the first step: what cannot be saved is not worth training."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from opd.devices.team import first_rank
from opd.learner.student import Student
from opd.models.loading import load_config, stop_ids, tokenizer_of
from opd.models.naming import checkpoint_names
from opd.models.shards import whole
from opd.run.directory import PASSING
from opd.run.saving import save
from opd.teaching import Scorer
from opd.types import Pretrained, RunError, UserError

REHEARSAL = f"{PASSING}rehearsal-"


def rehearse(
    student: Student, base: Pretrained, judges: Mapping[str, Scorer], tokenizer: Any, stop: tuple[int, ...], run: Path
) -> None:
    """Write a checkpoint on the disk that the run will lie on, read it back, and remove it.

    Args:
        student: What would be saved.
        base: The model that it started from.
        judges: Those that may have something to save.
        tokenizer: The student's.
        stop: Ids that end its completions.
        run: Folder of the run, which need not be there yet.

    Raises:
        RunError: It cannot be written, or what is read is not what was written.
    """
    team = student.team
    cause: Exception | None = None
    near = next(folder for folder in (run, *run.absolute().parents) if folder.is_dir())
    scratch = first_rank(team, lambda: _scratch(near))
    try:
        written = save(Path(scratch), 0, student, judges, tokenizer, keep=1)
        problem = difference(student, Pretrained(str(written.model), base.trust_remote_code), tokenizer, stop)
    except (UserError, RunError) as error:
        cause, problem = error, str(error)
    except Exception as error:  # transformers, peft or safetensors, which all of them may refuse
        cause = error
        problem = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
    finally:
        if team.rank == 0:
            shutil.rmtree(scratch)
    if problem:
        raise RunError(
            f"a checkpoint of this student cannot be written and read back: {problem}; nothing was trained"
        ) from cause


def _scratch(folder: Path) -> str:
    """A new folder to write in; what killed runs have left of theirs is removed."""
    for left in folder.glob(f"{REHEARSAL}*"):
        shutil.rmtree(left, ignore_errors=True)
    return tempfile.mkdtemp(prefix=REHEARSAL, dir=folder)


def difference(student: Student, written: Pretrained, tokenizer: Any, stop: tuple[int, ...]) -> str | None:
    """What of a written model is not the student's; None where all is. Tensors are read one after the other."""
    found = _tensors(Path(written.path)) if student.team.rank == 0 else {}
    odd: list[str] = []
    for name, tensor in _saved(student):  # all ranks hand in their part of each, to the last one
        if student.team.rank == 0 and not odd:
            odd += _compared(name, tensor, found.pop(name, None))
    return first_rank(student.team, lambda: next(iter(odd), None) or _unlike(student, written, tokenizer, stop, found))


def _compared(name: str, tensor: Tensor, file: Path | None) -> list[str]:
    if file is None:
        return [f"{name} is missing"]
    with safe_open(file, framework="pt") as tensors:
        same = torch.equal(tensors.get_tensor(name), tensor.cpu())
    return [] if same else [f"{name} is another tensor"]


def _unlike(
    student: Student, written: Pretrained, tokenizer: Any, stop: tuple[int, ...], left: Mapping[str, Path]
) -> str | None:
    """What beside its tensors is not as it was; `left`: tensors that the student does not have."""
    if left:
        return f"there is {next(iter(left))}, which the student does not have"
    reread = tokenizer_of(written)
    if reread.get_vocab() != tokenizer.get_vocab() or reread.chat_template != tokenizer.chat_template:
        return "its tokenizer is another one"
    if hasattr(student.model, "peft_config"):
        return None
    if (kind := load_config(written).model_type) != student.model.config.model_type:
        return f"its config is of a {kind}, and the student is a {student.model.config.model_type}"
    if (ends := stop_ids(written, reread)) != stop:
        return f"completions would end at the ids {list(ends)}, and end at {list(stop)} now"
    return None


def _saved(student: Student) -> Iterator[tuple[str, Tensor]]:
    """Names in files and whole tensors that a checkpoint of the student has to hold."""
    named = ((name, whole(tensor)) for name, tensor in student.saved())
    if hasattr(student.model, "peft_config"):
        from peft import get_peft_model_state_dict

        yield from get_peft_model_state_dict(student.model, state_dict=dict(named)).items()
    else:
        yield from checkpoint_names(student.model, named)


def _tensors(folder: Path) -> dict[str, Path]:
    """The file that each tensor of a folder is in."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found
