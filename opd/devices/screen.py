"""A terminal as it was before ranks drew on it: one that is killed cannot give it back. Standard library only."""

from __future__ import annotations

import os
from typing import Any

SHOW_CURSOR = b"\x1b[?25h"


class Screen:
    """The state of the terminal that stdout or stderr leads to, if one does."""

    def __init__(self) -> None:
        self._terminal = next((fd for fd in (1, 2) if os.isatty(fd)), None)
        self._before: list[Any] | None = None
        if self._terminal is not None and os.name == "posix":
            import termios

            self._before = termios.tcgetattr(self._terminal)

    def give_back(self) -> None:
        """Make it as it was; leaves it alone where it is another job's by now."""
        if self._terminal is None or self._before is None or os.tcgetpgrp(self._terminal) != os.getpgrp():
            return
        import termios

        termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)
        os.write(self._terminal, b"\r" + SHOW_CURSOR)
