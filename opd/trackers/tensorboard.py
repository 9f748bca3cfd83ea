"""TensorBoard: event files in the run directory. Nothing leaves the machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd.hints import quoted
from opd.trackers import need

WRITER = "tensorboard.summary.writer.event_file_writer"
"""The module whose thread writes the file."""


@dataclass(frozen=True)
class TensorBoard:
    """Settings of the TensorBoard tracker."""

    subfolder: str = "tensorboard"
    """Folder of the event files, inside the run directory."""

    def start(self, run_name: str, config: Mapping[str, Any], folder: str | Path, done: int = 0) -> TensorBoardLog:
        """Open a new event file; the viewer drops the points after step `done` that an earlier one holds.

        Raises:
            UserError: tensorboard is not installed.
        """
        events = Path(folder) / self.subfolder
        writer = need("torch.utils.tensorboard", "tensorboard").SummaryWriter(
            log_dir=str(events), purge_step=done + 1 if done else None
        )
        # Four spaces make it a code block in the text tab's Markdown.
        text = json.dumps(config, indent=2, default=str).replace("\n", "\n    ")
        writer.add_text("config", f"{run_name}\n\n    {text}", global_step=done)
        return TensorBoardLog(writer, f"tensorboard --logdir {quoted(str(events))}")


class TensorBoardLog:
    """An open event file."""

    def __init__(self, writer: Any, where: str) -> None:
        self._writer, self.where = writer, where
        self._told, threading.excepthook = threading.excepthook, self._untold

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one point per metric; flushed, so that a killed run loses none."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        threading.excepthook = self._told
        self._writer.close()

    def _untold(self, args: threading.ExceptHookArgs) -> None:
        """Leave out what the writer's thread has met with: it is raised at the next call as well."""
        if type(args.thread).__module__ != WRITER:
            self._told(args)
