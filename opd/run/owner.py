"""A run is written by one process at a time: a lock in its folder, which goes with the process, however that ends."""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from shutil import SpecialFileError

from opd.disk import lock, unlinked, writing
from opd.run.directory import OWNER, RunFolder, numbered
from opd.run.left import named, refuse_used
from opd.types import UserError

LOOKS, LOOK = 3, 0.02
"""How often, and for how many seconds, one waits for somebody who looks whether a run is locked."""


@dataclass(frozen=True)
class Owned:
    """A run that nobody else writes, as long as the context lasts."""

    run: RunFolder
    note: str = ""
    """What there is to say of it."""


@contextmanager
def owned(run: RunFolder, *, begun: bool, free: bool = False) -> Iterator[Owned]:
    """Own a run's folder, which is made where it is not there, and removed where nothing has come into it.

    Args:
        run: which.
        begun: it goes on; else its folder has to be empty.
        free: nobody has asked for this very name: where another run has taken it meanwhile, the next one is taken.

    Raises:
        UserError: another process owns it, or the folder cannot be made.
    """
    with ExitStack() as stack:
        path = next(p for p in (numbered(run.path) if free else [run.path]) if stack.enter_context(made(p, free)))
        file, note = stack.enter_context(locked(path))
        if not begun:
            refuse_used(RunFolder(path))
        with writing(path / OWNER):
            file.truncate(0)
            file.write(f"{os.getpid()} {platform.node()}\n".encode())
        yield Owned(RunFolder(path), note)


@contextmanager
def made(path: Path, first: bool) -> Iterator[bool]:
    """Make a folder, and remove it, with those above it that were made with it, if it is empty in the end.

    Gives whether it is to be had: with `first` only where it was not there.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=not first)
    except FileExistsError:
        if not first:
            what = "a file" if path.exists() else "a link that leads to nothing"
            raise UserError(f"run={path}: this is {what}, allowed is a new or an empty folder") from None
        yield False
        return
    except OSError as error:
        raise UserError(f"run={path}: its folder cannot be made: {error.strerror}; name another one") from error
    try:
        yield True
    finally:
        with suppress(OSError):  # not empty, or gone
            for folder in missing:
                folder.rmdir()


@contextmanager
def locked(path: Path) -> Iterator[tuple[FileIO, str]]:
    """Lock a folder; gives the file that does, which names the owner, and what there is to say."""
    place = path / OWNER
    note = ""
    for _ in itertools.count():
        try:
            file = FileIO(place, "a+", opener=unlinked)  # no buffer: nothing is tried again at the end
        except FileNotFoundError:
            path.mkdir(parents=True, exist_ok=True)  # another one has just removed the folder that it had made
            continue
        except OSError as error:
            if place.is_symlink() or isinstance(error, SpecialFileError):
                raise UserError(
                    f"run={path}: {place} is a {'link' if place.is_symlink() else 'pipe or a device'}, and no file of "
                    "its own; remove it"
                ) from error
            raise UserError(f"run={path}: nothing can be written there: {error.strerror}; name another one") from error
        with file:
            try:
                held = taken(file)
            except BlockingIOError as error:
                raise UserError(f"run={path}: {owner(place)} trains it; wait until it has ended, or stop it") from error
            except OSError as error:
                raise UserError(f"run={path}: it cannot be locked: {error.strerror}; name another one") from error
            if not held:
                note = f"run={path}: this disk knows no locks; nothing keeps a second `opd train` out of the folder"
            if not same_file(file, place):  # the one before has ended, and taken its file with it
                continue
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # the same under another name
            try:
                with kept(path):
                    yield file, note
            finally:
                with suppress(OSError):  # where nothing can be removed any more it stays, and keeps nobody out
                    if same_file(file, OWNER, folder):
                        os.unlink(OWNER, dir_fd=folder)
                os.close(folder)
            return


@contextmanager
def kept(path: Path, shared: bool = False) -> Iterator[None]:
    """Lock the folder itself, too, where its disk can: the file that names the owner may be deleted in mid-run."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        taken(folder, shared)
    except BlockingIOError as error:
        os.close(folder)
        raise UserError(f"run={path}: another process trains it; wait until it has ended, or stop it") from error
    except OSError:  # a disk that locks files alone
        pass
    try:
        yield
    finally:
        os.close(folder)


def taken(file: FileIO | int, shared: bool = False) -> bool:
    """Lock a file as `opd.disk.lock` does; who only looks (`holder`) has it for an instant, and is waited for."""
    for _ in range(LOOKS):
        try:
            return lock(file, wait=False, shared=shared)
        except BlockingIOError:
            time.sleep(LOOK)
    return lock(file, wait=False, shared=shared)


def holder(path: Path) -> str | None:
    """Who trains the run in a folder, as far as its file tells; None where nobody does, `""` where none can know.

    The file of a process that was killed stays, and is not locked.
    """
    try:
        with FileIO(path / OWNER, opener=unlinked) as file:
            if not lock(file, wait=False, shared=True):
                return ""
    except BlockingIOError:
        return owner(path / OWNER)
    except OSError:  # there is none; it may have been deleted
        pass
    try:
        with kept(path, shared=True):
            return None
    except UserError:
        return owner(path / OWNER)
    except OSError:
        return None


def same_file(file: FileIO, place: str | Path, folder: int | None = None) -> bool:
    """Whether an open file is the one that lies at a place, of an open folder where one is given."""
    try:
        there = os.stat(place, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(file.fileno()))


def owner(place: Path) -> str:
    """Who holds a lock, as far as its file tells."""
    return named(place) or "another process"
