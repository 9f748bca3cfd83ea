"""The folder in which made checkpoints are kept, and how one gets into it whole or not at all.

Those that come with the package are not made again: `opd.models.shelf` is asked first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from opd.disk import lock
from opd.models import shelf
from opd.places import share, typed
from opd.types import UserError

Progress = Callable[[float], None]
"""Told from time to time which share of the work is done, in [0, 1]."""


_looking = ContextVar("looking", default=False)


class Unmade(Exception):
    """A checkpoint that is not there yet, and is not to be made now."""


@contextmanager
def looking() -> Iterator[None]:
    """Inside, what is not there yet is not made: it raises `Unmade`."""
    before = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(before)


def root() -> Path:
    """The cache: `$OPD_CACHE`, else `~/.cache/opd`."""
    place = typed(os.environ.get("OPD_CACHE") or "~/.cache/opd")
    if place.parts[:1] == ("~",):
        raise UserError("there is no home folder to keep made models in; name another one by the variable OPD_CACHE")
    return place


def checkpoint(source: Any, inputs: str, title: str, build: Callable[[Path, Progress], None]) -> str:
    """Give the folder that `source` stands for, building it first where it neither shipped nor is there yet.

    It is built under a temporary name and renamed when its bytes are on disk, so that an interrupted build is never
    taken for a finished one. Of several processes that want the same folder, one builds and the others wait.

    Args:
        source: A frozen dataclass; its name and its fields are the folder's key.
        inputs: What else the result depends on: a format version, the state of the files that are read.
        title: What is being made, for people.
        build: Writes the checkpoint into the empty folder that it is given.
    """
    key = hashlib.sha256(f"{type(source).__module__}.{source!r}\n{inputs}".encode()).hexdigest()[:16]
    name = f"{type(source).__name__.lower()}-{key}"
    if shipped := shelf.find(name):
        return str(shipped)
    final = root() / name
    if final.is_dir():
        return str(final)
    if _looking.get():
        raise Unmade(title)
    with _lock(final.with_name(f".{name}.lock")):
        if not final.is_dir():  # another process may have built it while this one waited
            _build(final, title, build)
    return str(final)


def state(path: Path) -> str:
    """Describe a file or a model folder, so that a changed one is noticed: names, sizes and times of change."""
    files = sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]
    return ";".join(f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)


def _build(final: Path, title: str, build: Callable[[Path, Progress], None]) -> None:
    for dead in final.parent.glob(f".{final.name}.tmp-*"):  # we hold the lock: whoever wrote these is gone
        shutil.rmtree(dead)
    draft = final.with_name(f".{final.name}.tmp-{os.getpid()}")
    draft.mkdir()
    try:
        with _progress(title) as progress:
            build(draft, progress)
        if (config := draft / "config.json").is_file():
            share(draft, like=config)
        for path in [*draft.iterdir(), draft]:
            _sync(path)
        draft.rename(final)
        _sync(final.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for; the system lets go of it even where this process is killed."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("wb"))
        except OSError as error:
            raise UserError(
                f"{path.parent}: models that are made are kept there, and nothing can be written ({error.strerror}); "
                "name another folder by the variable OPD_CACHE"
            ) from error
        lock(file, wait=True)
        yield


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    """Show a bar on a terminal's stderr, else one plain line."""
    if not sys.stderr.isatty():
        print(title, file=sys.stderr, flush=True)
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars off the screen for a while."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
