"""Files: written whole or not at all, locked, with room for them or not; and what is said when the system refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from shutil import SpecialFileError
from typing import IO, Any

from safetensors import SafetensorError

from opd.plain import plain
from opd.types import RunError, UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
"""What the system says of disks, whichever file it was."""

LARGEST = 2**22
"""Bytes of a file that is read as a whole, and may be anybody's."""
LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What disks say that know no locks."""


@contextmanager
def writing(place: Path, draft: Path | None = None) -> Iterator[None]:
    """RunError in one line where something at or below a place cannot be written; `draft` is where that is begun."""
    try:
        yield
    except OSError as error:
        where = place if error.filename in (None, str(draft)) else error.filename
        raise RunError(f"{where} cannot be written: {error.strerror or error}") from error
    except SafetensorError as error:
        raise RunError(f"{place} cannot be written: {_said(error)}") from error


def unwaiting(name: str, flags: int) -> int:
    """Open a file, or whatever has its name: nobody is waited for at the other end of a pipe."""
    return os.open(name, flags | os.O_NONBLOCK, 0o666)


def unlinked(name: str, flags: int) -> int:
    """Open a file of this very name: what a link leads to is another's, and a pipe would be waited for."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise SpecialFileError(f"{name} is no file")


def added_to(path: Path) -> IO[bytes]:
    """Open a file to add to its end; a link makes way for it, as one in a run's folder leads to what is another's."""
    if path.is_symlink():
        path.unlink()
    return open(path, "ab+", opener=unlinked)


def read_text(path: Path, most: int = LARGEST) -> str:
    """What is in a file that may be anybody's: no pipe, which would be waited for, and of so many bytes at most.

    Raises:
        ValueError: It is none, or holds more, or is not UTF-8.
        OSError: It cannot be read.
    """
    with FileIO(path, opener=unwaiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no file")
        if len(found := file.read(most + 1)) > most:
            raise ValueError(f"it has more than {most} bytes")
    return found.decode("utf-8")


def read_json(path: Path, most: int = LARGEST) -> Any:
    """The same of a file of JSON; ValueError where it is none, too."""
    return plain(read_text(path, most))


def files_below(folder: Path) -> Iterator[Path]:
    """All that lies below a folder and is none itself, however deep; links are not followed.

    What is gone meanwhile, or not to be read, is left out.
    """
    folders = [str(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield Path(entry.path)


@contextmanager
def whole(path: Path, owner: str = "", *, follow: bool = False) -> Iterator[Path]:
    """A path to write to, which gets its name when all is written: who reads along sees the whole file, or none.

    Args:
        path: Where the file will be.
        follow: A person has named it: a link stays one, and a pipe or a device is written to itself. Else the file
            takes the link's place, as a folder may be anybody's, and its links lead to files that are not.
        owner: What tells the writers apart that may write this very file at the same time.
    """
    path = Path(os.path.realpath(path if follow else path.parent), "" if follow else path.name)
    with writing(path):
        if follow and path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
    part = path.with_name(f".{path.name}{owner}.writing")
    try:
        with writing(path, part):
            yield part
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def lock(file: IO[bytes] | FileIO | int, *, wait: bool, shared: bool = False) -> bool:
    """Lock an open file for this process, and for those that inherit it; the lock goes with them, however they end.

    A shared lock keeps out those alone who want it for themselves.

    Returns:
        Whether it is locked: False where the disk knows no locks.

    Raises:
        BlockingIOError: another process has locked it, and nobody is to wait.
        OSError: it cannot be locked, for another reason.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        return False
    return True


def refusal(error: Exception) -> str | None:
    """What the system has refused a program, in words; None for errors that are not of files and disks."""
    if isinstance(error, SafetensorError) and "os error" in str(error):
        return f"a file of tensors cannot be written: {_said(error)}"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    why = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename) if not isinstance(error.filename, int) else 'a file'}: {why}"
    if error.errno in FULL:
        return f"a file cannot be written: {why}"
    return why if "temporary directory" in why else None


def _said(error: SafetensorError) -> str:
    return str(error).removeprefix("Error while serializing: ")


def refuse_narrow(run: Path, size: int, count: int) -> None:
    """UserError where a disk has too little room for `count` checkpoints of `size` bytes."""
    there = next(p for p in (run, *run.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    if free < size * count:
        raise UserError(
            f"run={run}: {count} checkpoints of {size / 1e9:.3g} GB are there at once (checkpoint.keep, and the one "
            f"that is being written), and {free / 1e9:.3g} GB are free; make room, keep fewer, or set runs=DIR to "
            "another disk"
        )
