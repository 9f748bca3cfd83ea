"""A command at work in this process: somewhere to report to, and the threads that its config gives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opd.config.settings import Config
    from opd.console import Console


def console_for(as_json: bool, quiet: bool, debug: bool) -> Console:
    """Where a command reports to: beside JSON on stdout, stderr."""
    from opd.console import make_console

    return make_console(sys.stderr if as_json else sys.stdout, quiet=quiet, plain=debug)


@contextmanager
def at_work(config: Config, quiet: bool, console: Console | None) -> Iterator[Console]:
    """The console that is given, or else one that the terminal can show, for as long as the work lasts."""
    from opd.console import make_console
    from opd.devices.threads import threads
    from opd.plan.remedy import advised

    with console or make_console(quiet=quiet) as shown, threads(config.threads), advised(config):
        yield shown
