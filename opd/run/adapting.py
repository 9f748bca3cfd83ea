"""An objective that changes with the figures of each step, from which a run that goes on takes it up again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from opd.config.settings import Config
from opd.devices.team import Team, first_rank
from opd.protocols import Objective
from opd.run.checkpoint import Checkpoint
from opd.run.directory import RunFolder
from opd.run.rows import rows_until


@runtime_checkable
class Adaptive(Protocol):
    """An objective that changes in a run, with the figures of its steps."""

    def figures(self) -> Mapping[str, float]:
        """What of it changes, under names of `metrics.jsonl`: that row is where it is kept."""
        ...

    def after(self, row: Mapping[str, float]) -> Objective:
        """The same for the step after one whose row is given, its own figures included."""
        ...


def resumed(cfg: Config, run: RunFolder, begun: Checkpoint | None, team: Team) -> Config:
    """The same with the objective as it was after the checkpoint that the run goes on from, on all ranks."""
    if begun is None or not changes(cfg):
        return cfg
    rows = first_rank(team, lambda: rows_until(run.metrics, begun)[-1:])
    return adapted(cfg, rows[0]) if rows and rows[0]["step"] == begun.step else cfg


def adapted(cfg: Config, row: Mapping[str, float]) -> Config:
    """The same with the objective of the next step, by the figures of the last one."""
    objective = cfg.objective
    return replace(cfg, objective=objective.after(row)) if isinstance(objective, Adaptive) and changes(cfg) else cfg


def changes(cfg: Config) -> dict[str, float]:
    """What of an objective changes, under the names of `metrics.jsonl`; nothing of one that stays."""
    return dict(cfg.objective.figures()) if isinstance(cfg.objective, Adaptive) else {}
