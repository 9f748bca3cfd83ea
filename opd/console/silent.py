"""No console at all: of several processes that compute one run, the first one talks."""

from __future__ import annotations

import io
import os

from opd.console.plain import PlainConsole


class SilentConsole(PlainConsole):
    """The plain one, whose lines and warnings go nowhere."""

    def __init__(self) -> None:
        nowhere = io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8")
        super().__init__(nowhere, nowhere, quiet=True)
