"""What a rank has to say when it ends, and what made several end. Standard library only."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from opd.plain import plain

Kind = Literal["begun", "done", "mistake", "failure", "interrupted", "unforeseen", "lost", "died"]
"""`mistake` is a UserError, `failure` a RunError; `lost`: it ended as it could not reach another one."""


@dataclass(frozen=True)
class Report:
    """One rank's last words; or those that are said for it."""

    kind: Kind
    message: str = ""
    signal: int = 0
    """What interrupted it."""
    run: str = ""
    """The folder of what it computes, where it has come so far."""
    trace: str = ""
    """Python's traceback, or the last lines that a rank printed which could not say more."""
    result: Any = None
    """What it was to find out, in values that JSON knows."""
    at: float = 0.0
    """When, in seconds since 1970."""

    def write(self, path: Path) -> None:
        """Write it so that nobody reads half of it."""
        text = json.dumps(asdict(replace(self, at=self.at or time.time())))
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)


def read_report(path: Path) -> Report | None:
    """What a rank has said; None where it has not."""
    try:
        return Report(**plain(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def root_cause(reports: Sequence[Report]) -> Report:
    """The one that the others follow from: the first that went wrong by itself, else the first that lost another.

    Where nothing went wrong it is rank 0's.
    """
    wrong = [r for r in reports if r.kind != "done"]
    return min(wrong, key=lambda r: (r.kind == "lost", r.at), default=reports[0])


def first_line(error: Exception) -> str:
    """The first line of an error's text, cut short."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300]
