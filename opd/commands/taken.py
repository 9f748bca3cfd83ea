"""Which run a command takes where none is named: the newest, and it is said which that is."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from opd.hints import printable

OTHERS = ("run", "model", "conf")
"""What is asked about instead of the newest run."""


def taken(named: Mapping[str, str], overrides: Sequence[str] = (), *, quiet: bool = False) -> dict[str, str]:
    """What was named, and with nothing of it the newest run, which is told on stderr unless all is to be quiet.

    Whoever carries it out, here or in other processes, is then asked about this very run, also where another one
    is written to meanwhile.

    Raises:
        UserError: nothing is named, and there is no run.
    """
    if any(name in named for name in OTHERS):
        return dict(named)
    from opd.devices.launched import other
    from opd.run.directory import find_run

    run = find_run(named, overrides).path
    if not quiet and not other():  # of several processes one talks
        print(printable(f"the newest run: {run}"), file=sys.stderr, flush=True)
    return {**named, "run": str(run)}
