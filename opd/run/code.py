"""Which code a run was made with, where opd is a git checkout and no installed package."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 5
"""Seconds that git has for an answer."""


def commit(checkout: Path = CHECKOUT) -> str | None:
    """The commit that opd is at, with `+changes` behind it where files differ; None without a checkout, or git."""
    if not (checkout / ".git").exists():  # another's, around an installed package, says nothing of it
        return None
    head, changed = _git(checkout, "rev-parse", "HEAD"), _git(checkout, "status", "--porcelain", "-uno")
    return head and f"{head}{'+changes' if changed else ''}"


def _git(checkout: Path, *arguments: str) -> str | None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a hook, or another's
    try:
        said = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=PATIENCE, check=True,
            env=own,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # no git here, or one that does not trust the folder
        return None
    return said.stdout.strip()
