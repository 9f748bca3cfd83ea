"""What each of several processes of one launcher (torchrun, srun) does of a command, by its name."""

from __future__ import annotations

import sys

import typer

from opd.devices.launched import other, refuse_several

TOGETHER = ("train", "eval", "doctor", "version")
"""Commands in which each has its part, or which all may well do."""
STARTING = ("recipe",)
"""Commands that start processes, which would take themselves for some of the launcher's."""


def leave_to_first(command: str) -> None:
    """Where this is not the first of several, leave what one does to that: in the same folder they would clash."""
    if command in STARTING:
        refuse_several(f"opd {command}")
    elif command not in TOGETHER and (rank := other()):
        print(f"opd {command}: rank {rank} leaves it to rank 0", file=sys.stderr)
        raise typer.Exit
