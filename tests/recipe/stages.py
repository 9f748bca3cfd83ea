"""Stages of a few lines of Python, for tests of what runs them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from opd.recipe import Work


@dataclass(frozen=True)
class Script:
    """A stage that runs `code` in the work folder."""

    name: str
    code: str
    after: tuple[str, ...] = ()
    prints_json: bool = False
    modules: tuple[str, ...] = field(default=("os", "signal", "sys", "time"))

    @property
    def says(self) -> str:
        return self.code

    def begin(self, work: Work, recipe: Path) -> list[str]:
        return [sys.executable, "-c", f"import {', '.join(self.modules)}\n{self.code}"]


def traced(name: str, before: str = "", after: tuple[str, ...] = ()) -> Script:
    """A stage that leaves its name in the file `trace`, after what comes `before`."""
    return Script(name, f"{before}\nopen('trace', 'a').write('{name} ')", after)
