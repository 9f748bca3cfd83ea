"""Commands that are printed to be typed next: each works as it stands, for this very run."""

from __future__ import annotations

from contextlib import suppress

from opd.config.trust import allowances
from opd.hints import joined
from opd.run.directory import RunFolder
from opd.run.overview import read_settings
from opd.types import UserError


def way(command: str, run: RunFolder, *more: str, ours: bool = True) -> str:
    """`opd COMMAND` of a run, as a shell takes it.

    With what allows its own parts and what comes with its models where it is `ours`: this command had that allowed. Of
    a run that is but looked at, which may be anybody's, nobody is told to allow anything.
    """
    allowed: list[str] = []
    with suppress(UserError):  # it has no config yet, or none that can be read
        allowed = allowances(read_settings(run)[1]) if ours else []
    return joined(["opd", *command.split(), f"run={run.path}", *more, *allowed])


def unbegun(run: RunFolder, done: int) -> str:
    """What becomes of a run that is stopped before it has taken a step in this process."""
    if done:
        return f"stopped before step {done + 1}; go on with:  {way('train --resume', run)}"
    if run.config.exists():
        return f"stopped before the first step; begin it anew with:  {way('train --resume', run)}"
    return "stopped before the first step; start again"
