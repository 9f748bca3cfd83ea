"""The work folder of a recipe: its runs, its results, and which of its stages are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd.plain import plain
from opd.recipe.curve import Curve, read_curve
from opd.recipe.numbers import decode
from opd.recipe.stamps import Stamps
from opd.run.directory import RunFolder


@dataclass(frozen=True)
class Work:
    """Paths of one try of a recipe."""

    path: Path
    """Absolute."""

    @property
    def stamps(self) -> Stamps:
        """Which stages were begun, and which are done."""
        return Stamps(self.path)

    def run(self, stage: str) -> RunFolder:
        """The run of a `Train` stage."""
        return RunFolder(self.path / stage)

    def curve(self, stage: str) -> Curve:
        """The evaluations of a `Train` stage."""
        return read_curve(self.run(stage))

    def json(self, stage: str) -> dict[str, Any]:
        """What an `Evaluate` or a `Call` stage has found; null is NaN."""
        found: dict[str, Any] = decode(plain((self.path / f"{stage}.json").read_text(encoding="utf-8")))
        return found

    def log(self, stage: str) -> Path:
        """What a stage has said."""
        return self.path / "logs" / f"{stage}.log"
