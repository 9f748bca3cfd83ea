"""Weights & Biases. Offline runs stay in the run directory until `wandb sync`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from opd.disk import read_text, whole
from opd.hints import quoted
from opd.trackers import need
from opd.types import UserError

LONGEST = 100
"""Bytes of a run's mark."""


@dataclass(frozen=True)
class WandB:
    """Settings of the Weights & Biases tracker."""

    project: str = "opd"
    """The run's place there."""
    entity: str | None = None
    """User or team; None is the default one of the account."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """None takes what the variable `WANDB_MODE` says, which is online where it is not set."""
    group: str | None = None
    """Of runs that belong together."""
    tags: tuple[str, ...] = ()
    """Words that the run is found by."""

    def start(self, run_name: str, config: Mapping[str, Any], folder: str | Path, done: int = 0) -> WandBLog:
        """Open the run; the id that lies in the run directory makes a resumed one go on in the same chart.

        Raises:
            UserError: wandb is not installed, not logged in and not offline, or a variable of its own cannot be.
        """
        wandb = need("wandb", "wandb")
        note = Path(folder) / "wandb_id.txt"
        note.parent.mkdir(parents=True, exist_ok=True)
        mark = ""
        if done:
            with suppress(OSError, ValueError):
                mark = read_text(note, LONGEST).strip()
        if not mark:
            mark = uuid.uuid4().hex[:12]
            with whole(note) as part:
                part.write_text(mark + "\n", encoding="ascii")
        try:
            run = wandb.init(
                project=self.project, entity=self.entity, group=self.group, tags=self.tags or None, mode=self.mode,
                id=mark, resume="allow" if done else None, name=run_name, config=dict(config),
                dir=str(folder),
                # The console is not its to record, and its messages are not to run into the panel.
                settings=wandb.Settings(console="off", silent=True),
            )  # fmt: skip
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            line = " ".join(str(error).split())
            raise UserError(f"tracker wandb: {line}; run `wandb login`, or set mode: offline in its config") from error
        except ValueError as error:  # it reads WANDB_MODE and the like itself
            line = " ".join(str(error).split())[:200]
            raise UserError(f"tracker wandb: a setting of its own, or a WANDB_ variable, cannot be: {line}") from error
        where = (
            f"wandb sync {quoted(str(Path(run.dir).parent))}" if run.offline else run.url or "nowhere: mode is disabled"
        )
        return WandBLog(run, where)


class WandBLog:
    """An open run."""

    def __init__(self, run: Any, where: str) -> None:
        self._run, self.where = run, where
        self._first = run.step

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of a step; those that the server already has are not sent again, since it refuses them."""
        if step >= self._first:
            self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Send what is left; calling it twice is fine."""
        self._run.finish()
