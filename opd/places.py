"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def typed(path: str | os.PathLike[str]) -> Path:
    """A path with its `~` replaced; one of nobody here (`~nobody/x`) stays, and is then not found like any other."""
    return Path(os.path.expanduser(path))  # pathlib's own raises RuntimeError where there is no such person


def real(path: str | os.PathLike[str]) -> Path:
    """Where a path leads, whole and without links; links in a circle stay."""
    return Path(os.path.realpath(typed(path)))  # pathlib's own raises RuntimeError on such a circle
