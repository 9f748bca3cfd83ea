"""Where a run is written: whether there is room for it, and what is said when something cannot be written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from opd.types import RunError, UserError


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """RunError in one line where something at or below a place cannot be written."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{error.filename or place} cannot be written: {error.strerror or error}") from error
    except SafetensorError as error:
        raise RunError(f"{place} cannot be written: {str(error).removeprefix('Error while serializing: ')}") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which gets its name when all is written: who reads along sees the whole file, or none."""
    part = path.with_name(f".{path.name}.writing")
    try:
        with writing(path):
            yield part
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


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
