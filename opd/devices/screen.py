"""A terminal as it was before ranks drew on it: one that is killed cannot give it back. Standard library only."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

SHOW_CURSOR = b"\x1b[?25h"


class Screen:
    """The state of the terminal that stdout or stderr leads to, if one does."""

    def __init__(self) -> None:
        terminal = next((fd for fd in (1, 2) if os.isatty(fd)), None)
        self._terminal = None if terminal is None else os.dup(terminal)  # the panel turns 1 and 2 aside
        self._before: list[Any] | None = None
        if self._terminal is not None and os.name == "posix":
            import termios

            self._before = termios.tcgetattr(self._terminal)

    def give_back(self) -> None:
        """Show the cursor, and make the terminal as it was, unless it is another job's by now."""
        if self._terminal is None or self._before is None:
            return
        import termios

        with suppress(OSError, termios.error):  # closed, or no job's at all
            os.write(self._terminal, b"\r" + SHOW_CURSOR)
            if os.tcgetpgrp(self._terminal) == os.getpgrp():
                termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)

    def close(self) -> None:
        """Let go of it."""
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None
