"""The work folder of a recipe: its runs, its results, and which of its stages are done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd.recipe.curve import Curve, read_curve
from opd.runs import Run
from opd.types import UserError


@dataclass(frozen=True)
class Work:
    """Paths of one try of a recipe."""

    path: Path
    """Absolute."""

    def run(self, stage: str) -> Run:
        """The run of a `Train` stage."""
        return Run(self.path / stage)

    def curve(self, stage: str) -> Curve:
        """The evaluations of a `Train` stage."""
        return read_curve(self.run(stage))

    def json(self, stage: str) -> dict[str, Any]:
        """What an `Evaluate` or a `Call` stage has found."""
        found: dict[str, Any] = json.loads((self.path / f"{stage}.json").read_text(encoding="utf-8"))
        return found

    def log(self, stage: str) -> Path:
        """What a stage has said."""
        return self.path / "logs" / f"{stage}.log"

    def done(self, stage: str, says: str) -> bool:
        """Whether a stage has ended well, and was this one.

        Raises:
            UserError: it was done with other settings.
        """
        stamp = self._stamp(stage)
        if not stamp.is_file():
            return False
        before = json.loads(stamp.read_text(encoding="utf-8"))["says"]
        if before != says:
            raise UserError(
                f"{stamp}: this stage was done as `{before}`, and the recipe now says `{says}`; "
                "take another --work folder, or remove this file to do it again"
            )
        return True

    def mark(self, stage: str, says: str, seconds: float) -> None:
        """Write down that a stage has ended well."""
        stamp = self._stamp(stage)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps({"says": says, "seconds": round(seconds, 1)}, indent=2) + "\n", encoding="utf-8")

    def seconds(self, stage: str) -> float:
        """How long a stage that is done has taken, its last process only where it was interrupted."""
        return float(json.loads(self._stamp(stage).read_text(encoding="utf-8"))["seconds"])

    def _stamp(self, stage: str) -> Path:
        return self.path / "done" / f"{stage}.json"
