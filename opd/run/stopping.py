"""When a run is over before its last step, and which checkpoint is its best: by the evaluations it has written down.

Both follow from the rows of `metrics.jsonl` up to a step, which checkpoints hold too, so that a run that goes on
decides as one that was never broken off. One that goes on with other settings of its evaluations compares those alone
that were made alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from opd.config.settings import Config
from opd.config.stop import StopConfig, less_is_better
from opd.devices.team import Solo, Team, first_rank
from opd.hints import among
from opd.run.checkpoint import Checkpoint, checkpoints
from opd.run.directory import RunFolder
from opd.run.results import Setting, setting_at, unlike
from opd.run.rows import rows_until
from opd.types import UserError

Row = Mapping[str, float]


@dataclass
class Watch:
    """The figures that a run goes by, as every rank of it sees them."""

    cfg: Config
    run: RunFolder
    team: Team = field(default_factory=Solo)
    rows: list[Row] = field(default_factory=list)
    """Of evaluations, in order."""
    settings: dict[int, Setting | None] = field(default_factory=dict)
    """How they were made, by step."""

    @classmethod
    def over(cls, cfg: Config, run: RunFolder, begun: Checkpoint | None, team: Team) -> Self:
        """That of a run which goes on from a checkpoint, or begins."""
        watch = cls(cfg, run, team)
        if begun is not None and watched(cfg):
            watch._take(lambda: rows_until(run.metrics, begun))
        return watch

    def see(self, step: int, metrics: Row) -> str | None:
        """Take note of what the first rank has measured after a step, if it did; gives what there is to say of that."""
        if not watched(self.cfg):
            return None
        last = int(self.rows[-1]["step"]) if self.rows else step
        self._take(lambda: [{"step": step, **metrics}])
        other = unlike(self.settings.get(last), self.settings.get(step))
        compared = {"checkpoint.best": self.cfg.checkpoint.best, "stop.patience": self.cfg.stop.patience}
        by = " and ".join(name for name, value in compared.items() if value is not None)
        if not (other and by):
            return None
        return (
            f"step {step}: measured with other {', '.join(other)} than at step {last}; {by} compare"
            f"{'' if ' and ' in by else 's'} from here on only what is measured like this"
        )

    def _take(self, rows: Callable[[], Sequence[Row]]) -> None:
        self.rows += first_rank(self.team, lambda: figures(rows()))
        self.settings = first_rank(self.team, lambda: settings_of(self.run, self.rows, self.settings))

    def enough(self, step: int) -> str | None:
        """Why the run is over with this step; None: it is not, or takes no other step anyway."""
        looks = [row for row in self.rows if row["step"] % self.cfg.eval.every == 0]  # not what a last step had extra
        if not 0 < step < self.cfg.steps or not looks or looks[-1]["step"] != step:
            return None
        now = self.settings.get(step)
        why = enough(self.cfg.stop, [r for r in looks if not unlike(self.settings.get(int(r["step"])), now)])
        return f"stopped at step {step}: {why}" if why else None

    def best(self, step: int) -> int | None:
        """The step of the best checkpoint, once there is one of `step` too; None: it is not to be kept."""
        metric = self.cfg.checkpoint.best
        if metric is None:
            return None
        rows, made = self.rows, self.settings
        return first_rank(self.team, lambda: best(metric, rows, {step, *steps_of(self.run, step)}, made))


def watched(cfg: Config) -> list[str]:
    """The figures that a run goes by."""
    return list(dict.fromkeys(metric for metric in (cfg.stop.metric, cfg.checkpoint.best) if metric is not None))


def refuse_unknown(cfg: Config, measured: Iterable[str]) -> None:
    """UserError where an evaluation of this run does not give a figure that it is to go by."""
    known = [name for name in measured if name.startswith("eval/")]
    for setting, metric in (("stop.metric", cfg.stop.metric), ("checkpoint.best", cfg.checkpoint.best)):
        if metric is not None and metric not in known:
            raise UserError(f"{setting}={metric}: evaluations of this run have no such figure{among(metric, known)}")


def figures(rows: Sequence[Row]) -> list[Row]:
    """Of rows with an evaluation, that alone."""
    found = [{k: v for k, v in row.items() if k == "step" or k.startswith("eval/")} for row in rows]
    return [row for row in found if len(row) > 1]


def settings_of(
    run: RunFolder, rows: Iterable[Row], known: Mapping[int, Setting | None] | None = None
) -> dict[int, Setting | None]:
    """How the evaluations of rows were made, by step, as far as it is not known yet."""
    known = known or {}
    steps = [int(row["step"]) for row in rows]
    return {step: known[step] if step in known else setting_at(run, step) for step in steps}


def steps_of(run: RunFolder, last: int) -> list[int]:
    """Steps of a run's checkpoints up to one: what comes after was passed over when it went on, and is made again."""
    return [c.step for c in checkpoints(run.checkpoints) if c.step <= last]


def best(
    metric: str, rows: Iterable[Row], steps: Iterable[int], settings: Mapping[int, Setting | None] | None = None
) -> int | None:
    """Which of the steps has the best figure, the first of several; None where none has one that is a number.

    Of figures that were measured in several ways (`settings`, by step) those like the last are compared.
    """
    there, made = set(steps), settings or {}
    known = {int(r["step"]): r[metric] for r in rows if r["step"] in there and math.isfinite(r.get(metric, math.nan))}
    last = made.get(max(known, default=0))
    known = {step: value for step, value in known.items() if not unlike(made.get(step), last)}
    choose = min if less_is_better(metric) else max
    return choose(sorted(known), key=known.__getitem__, default=None)


def enough(stop: StopConfig, rows: Sequence[Row]) -> str | None:
    """Why a run is over with the last of its evaluations, `rows`; None: it is not.

    An evaluation without the figure, or where it is no number, betters nothing, and is counted.
    """
    if stop.metric is None or not rows:
        return None
    sign = -1.0 if less_is_better(stop.metric) else 1.0
    values = [sign * row.get(stop.metric, math.nan) for row in rows]
    if stop.target is not None and values[-1] >= sign * stop.target:
        return f"{stop.metric} {'at most' if sign < 0 else 'at least'} {stop.target:g}"
    at, top = -1, -math.inf
    for i, value in enumerate(values):
        if value > top + stop.change:
            at, top = i, value
    if stop.patience is not None and len(values) - 1 - max(at, 0) >= stop.patience:
        since = f"{sign * top:.4g} at step {int(rows[at]['step'])}" if at >= 0 else "a number"
        return f"{stop.metric} not better than {since} in {stop.patience} evaluation{'s' if stop.patience > 1 else ''}"
    return None
