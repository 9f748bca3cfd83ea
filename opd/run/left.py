"""What a start has left in a run's folder that was killed before there was a run, and what is somebody's own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from opd.disk import read_text
from opd.run.directory import OWNER, PASSING, RunFolder, read_environment
from opd.types import UserError

ALWAYS = {"python", "packages", "system", "cpus", "gpus"}
"""What is in every env.json."""
NAMED = 1000
"""Bytes that name an owner, at most."""


def refuse_used(run: RunFolder) -> None:
    """UserError where the folder already holds something."""
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"run={run.path}: this is a file, allowed is a new or an empty folder")
    if run.path.exists() and not all(_of_a_start(p) for p in run.path.iterdir()):
        own = (
            "; go on with --resume, or name another one"
            if run.config.is_file()
            else ", and holds no run; name another one"
        )
        raise UserError(f"run={run.path}: the folder is not empty{own}")


def _of_a_start(path: Path) -> bool:
    """Whether it is what a start has left that was killed before there was a run, and not somebody's own."""
    name = path.name
    if name == OWNER:
        return path.is_symlink() or not path.is_file() or named(path) is not None  # whoever locks it says what is odd
    if name in ("overrides.txt", "env.json"):
        try:
            return not path.is_symlink() and read_environment(RunFolder(path.parent)).keys() >= ALWAYS
        except UserError:
            return False
    return name.startswith(PASSING) or (name.startswith(".") and name.endswith(".writing"))


def named(place: Path) -> str | None:
    """Who has written a run's `.owner`, as far as that tells; None where it is none."""
    with suppress(OSError, ValueError):
        words = read_text(place, NAMED).split()
        if not words:  # it was made this instant
            return "another process"
        process, host = words
        return f"process {int(process)} on {host}"
    return None
