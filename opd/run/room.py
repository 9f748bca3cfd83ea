"""How many checkpoints a run needs room for."""

from __future__ import annotations

import math
from pathlib import Path

from opd.config.settings import Config
from opd.run.checkpoint import checkpoints
from opd.run.directory import RunFolder


def more_at_once(cfg: Config, run: Path, version: int) -> int:
    """How many checkpoints more than now there will be at one time: those that are kept, and one being written."""
    there = len(checkpoints(RunFolder(run).checkpoints))
    coming = math.ceil((cfg.steps - version) / cfg.checkpoint.every)
    return max(0, min(cfg.checkpoint.keep + 1, there + coming) - there)
