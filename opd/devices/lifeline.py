"""A rank's end of the pipe to its launcher, which says when to stop, and whose closing says that it is gone.

Standard library only, as it has to be there before anything else is. A launcher that is killed cannot tell its ranks;
the system closes the pipe for it.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from opd.devices.leftovers import sweep
from opd.devices.screen import Screen

LIFELINE = "OPD_LIFELINE"
"""The environment variable that names the pipe's descriptor."""
STORE = "OPD_STORE"
"""The one that says where ranks find each other, as an address that torch understands."""
LAUNCH = "OPD_LAUNCH"
"""The one that names the launch's folder: by it what was started is known, as no two launches have the same."""
HEAD_START = 1.0
"""Seconds in which the first rank, which draws on the terminal, gives it back before others end it."""


def hold(place: Path, stop: Callable[[int], None], abort: Callable[[], None]) -> None:
    """Listen to the launcher, in a thread; nothing where there is none.

    Args:
        place: the launch's folder, removed where nobody else can.
        stop: called with the number of a signal, perhaps several times.
        abort: called where the run shall end at once.
    """
    if LIFELINE not in os.environ:
        return
    descriptor = int(os.environ.pop(LIFELINE))
    os.set_inheritable(descriptor, False)
    screen = Screen()  # before a panel is drawn
    threading.Thread(target=_listen, args=(descriptor, place, stop, abort, screen), daemon=True).start()


def _listen(
    descriptor: int, place: Path, stop: Callable[[int], None], abort: Callable[[], None], screen: Screen
) -> None:
    with os.fdopen(descriptor, encoding="ascii") as lines:
        for line in lines:
            match line.split():
                case ["stop", number]:
                    stop(int(number))
                case ["abort"]:
                    abort()
    screen.give_back()
    if os.environ.get("RANK") != "0":
        time.sleep(HEAD_START)
    sweep(f"{LAUNCH}={place}")  # engines' processes, and ranks that are too busy to listen, or stopped
    shutil.rmtree(place, ignore_errors=True)
    os._exit(1)
