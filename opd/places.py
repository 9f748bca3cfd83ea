"""Paths as people type them."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def typed(path: str | os.PathLike[str]) -> Path:
    """A path with its `~` replaced; one of nobody here (`~nobody/x`) stays, and is then not found like any other."""
    return Path(os.path.expanduser(path))  # pathlib's own raises RuntimeError where there is no such person


def real(path: str | os.PathLike[str]) -> Path:
    """Where a path leads, whole and without links; links in a circle stay."""
    return Path(os.path.realpath(typed(path)))  # pathlib's own raises RuntimeError on such a circle


def share(folder: Path, like: Path) -> None:
    """Give all files below a folder the rights of one of them: some libraries let their owner alone read theirs."""
    mode = stat.S_IMODE(like.stat().st_mode)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
