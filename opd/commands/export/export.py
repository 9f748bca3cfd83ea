"""`opd export`: a checkpoint of a run for other programs, checked to be the learner's model before it gets its name."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch

from opd.commands.export import card, formats, push, usage
from opd.commands.export.order import Order
from opd.commands.export.parity import check_parity
from opd.commands.subject import Subject, load_adapter
from opd.console import Console
from opd.disk import lock, writing
from opd.extras import install
from opd.models.loading import load_causal_lm, tokenizer_of
from opd.places import real, share
from opd.text.script import Script
from opd.types import RunError, UserError

WRITTEN = ("config.json", "generation_config.json", "README.md", "model.safetensors", "model.safetensors.index.json",
           "model-*-of-*.safetensors", "adapter_config.json", "adapter_model.safetensors")  # fmt: skip
"""Patterns of the files that an export writes beside the tokenizer's, and may replace."""
GGUF = ("*.gguf", "Modelfile", "README.md")
"""The same of one as GGUF."""
DRAFT = ".writing"


def export_run(
    subject: Subject, console: Console, order: Order, *, out: Path | None = None, repo: push.Repo | None = None
) -> dict[str, Any]:
    """Write the checkpoint with tokenizer, chat template and model card, and push it to the hub where that is asked.

    Returns:
        The folder, the parity figures and the step; what it was pushed to.

    Raises:
        UserError: an order that cannot be, a repository that cannot be written to, a folder that is not empty, cannot
            be made, or holds other files than an export's.
        RunError: the parity check failed, and nothing is left behind; or the hub did not take it.
    """
    assert subject.run is not None and subject.checkpoint is not None
    order.check(subject)
    asked = subject.run.path / "export" / (subject.checkpoint.path.name + order.suffix) if out is None else out
    final = real(asked)
    with _possible(asked):
        _refuse(subject, final, order, explicit=out is not None)
    if repo:
        repo.check()
    with _drafted(final, asked, inside=out is not None and final.is_dir()) as temporary:
        with console.task("write"):
            learner = _learner(subject)
            with writing(final):
                written = formats.write(subject, learner, temporary, order)
        parity = check_parity(subject, learner, written, console)
        if not parity.ok:
            raise RunError(f"the export is not the learner's model: {parity}; nothing was exported{_other(order)}")
        hub, chat = repo is not None, Script(tokenizer_of(subject.base), subject.config.data.template).chat
        use = partial(usage.lines, subject, written, hub=hub, chat=chat)
        within = use(repo.name if repo else final.name)  # it may be moved with it
        with writing(final):
            text = card.write(subject, asdict(parity), order, within)
            (temporary / "README.md").write_text(text, encoding="utf-8")
            share(temporary, like=temporary / "README.md")
            _put(temporary, final)
    if order.format == "gguf" and parity.engine is None:
        console.warn(f"llama.cpp has not read it, as it is not installed:  {install('gguf')}")
    console.say(f"parity over {parity.tokens} tokens: {parity}")
    card.summary(subject.run, subject.checkpoint.step, console)
    if repo:
        with console.task("push"):
            repo.push(final)
    for program, line in (*use(repo.name if repo else str(final)).items(), *usage.forms(subject, order).items()):
        console.say(f"{program}:  {line}")
    result = {"path": str(final), "step": subject.checkpoint.step, "dtype": order.kind, "parity": asdict(parity)}
    return result | ({"pushed": repo.name} if repo else {})


def _other(order: Order) -> str:
    """What to try where rounding was too coarse."""
    if order.quantize:
        return "; leave --quantize out"
    return "" if order.dtype == "float32" else "; try --dtype float32"


def _refuse(subject: Subject, final: Path, order: Order, *, explicit: bool) -> None:
    if os.path.lexists(final) and not final.is_dir():
        raise UserError(f"--out={final}: this is no folder, allowed is a new or an empty one")
    assert subject.checkpoint is not None
    there = {p.name for p in final.iterdir() if not p.name.startswith(DRAFT)} if final.is_dir() else set()
    if explicit and there:
        raise UserError(f"--out={final}: the folder is not empty")
    own = {p.name for p in subject.checkpoint.model.iterdir()}  # among them what the tokenizer is kept in
    may = GGUF if order.format == "gguf" else WRITTEN
    if other := sorted(n for n in there - own if not any(fnmatch(n, pattern) for pattern in may)):
        raise UserError(
            f"{final}: an export would replace this folder, and {', '.join(other[:5])} in it is not of one; "
            "move it elsewhere, or name another folder by --out"
        )


@contextmanager
def _possible(asked: Path) -> Iterator[None]:
    """UserError where a folder cannot be looked into, or made."""
    try:
        yield
    except OSError as e:
        raise UserError(f"--out={asked}: nothing can be written there ({e.strerror}); name another folder") from e


@contextmanager
def _drafted(final: Path, asked: Path, *, inside: bool) -> Iterator[Path]:
    """The folder that the export is written to before it gets its name; nothing is left of it where that fails.

    It lies inside of a folder that a person has made, which may be where they are, or another disk.

    Raises:
        UserError: another process writes the same export, or the folder cannot be made.
    """
    draft = final / DRAFT if inside else final.with_name(f".{final.name}{DRAFT}")
    made = [folder for folder in draft.parents if not os.path.lexists(folder)]  # the deepest first
    try:
        with ExitStack() as stack:
            with _possible(asked):
                own = stack.enter_context(_owned(draft, final))
            yield own
    finally:
        for folder in made:
            with suppress(OSError):  # what was exported lies in it
                folder.rmdir()


@contextmanager
def _owned(draft: Path, final: Path) -> Iterator[Path]:
    """A draft's folder that no other process has, empty; where a disk knows no locks, one of a name of its own."""
    draft.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        held = _opened(draft, stack)
        try:
            alone = lock(held, wait=False)
        except BlockingIOError:
            raise UserError(f"{final}: another `opd export` is writing it; wait until it has ended") from None
        except OSError:  # a disk that locks files alone
            alone = False
        if not alone:
            with suppress(OSError):  # it is not empty: somebody's, who was killed
                draft.rmdir()
            draft = draft.with_name(f"{draft.name}-{platform.node()}-{os.getpid()}")
            draft.mkdir()
            held = _opened(draft, stack)
        elif not _is(held, draft):
            raise UserError(f"{final}: another `opd export` has this instant written it; export again to replace it")
        try:
            for left in draft.iterdir():  # by a killed one
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield draft
        finally:
            if _is(held, draft):  # what has its name by now may be the next one's
                shutil.rmtree(draft, ignore_errors=True)


def _opened(folder: Path, stack: ExitStack) -> int:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    stack.callback(os.close, held)
    return held


def _is(folder: int, path: Path) -> bool:
    """Whether an open folder is the one at a path."""
    with suppress(OSError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(folder))
    return False


def _put(temporary: Path, final: Path) -> None:
    """Give what is written its place."""
    if temporary.parent == final:
        for path in temporary.iterdir():
            path.rename(final / path.name)
    else:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)


def _learner(subject: Subject) -> Any:
    """The learner's model in float32 on the CPU, an adapter on its base as in training."""
    assert subject.checkpoint is not None
    if subject.config.student.lora is not None:
        return load_adapter(subject.config, subject.checkpoint.model).float().eval()
    return load_causal_lm(subject.trained, torch.float32, device=torch.device("cpu")).eval()
