"""How many checkpoints a run needs room for."""

from __future__ import annotations

import math
from pathlib import Path

from opd.config.settings import Config
from opd.run.checkpoint import checkpoints
from opd.run.directory import RunFolder


def more_at_once(cfg: Config, run: Path, version: int) -> int:
    """How many checkpoints more than now there will be at one time: those that are kept, and one being written.

    The best one is beside the newest, and is written when it is measured.
    """
    there = len(checkpoints(RunFolder(run).checkpoints))
    left, kept = cfg.steps - version, cfg.checkpoint
    coming = math.ceil(left / kept.every) + (math.ceil(left / cfg.eval.every) if kept.best else 0)
    return max(0, min(kept.keep + (2 if kept.best else 1), there + coming) - there)
