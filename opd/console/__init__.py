"""What people see of a run: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from opd.console.base import Console, Job
from opd.console.history import Sample, Verdict
from opd.console.plain import PlainConsole

__all__ = ["Console", "Job", "PlainConsole", "Sample", "Verdict", "make_console"]


def make_console(stream: TextIO | None = None, *, quiet: bool = False, plain: bool = False) -> Console:
    """Choose the form that `stream` can show (default: stdout, looked up now).

    Plain lines when it is no terminal, cannot show blocks, belongs to another job, or `NO_COLOR` or `TERM=dumb` asks
    for it; `plain` forces them (a debugger needs the terminal for itself). Use it in a `with` statement, and start
    what asks the user something before it.
    """
    stream = stream or sys.stdout
    if quiet or plain or not can_draw(stream):
        return PlainConsole(stream, sys.stderr, quiet=quiet)
    # Only here, because rich takes a while to import.
    from opd.console.live import LiveConsole
    from opd.console.terminal import foreground

    return LiveConsole(stream) if foreground(stream.fileno()) else PlainConsole(stream, sys.stderr)


def can_draw(stream: TextIO) -> bool:
    """Whether the live panel would look right on a stream."""
    return (
        stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") not in ("dumb", "unknown", "")
        and (stream.encoding or "").lower().replace("-", "") == "utf8"
    )
