"""`opd train`: what was asked for, carried out in this process or by several that do the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from opd.commands import jobs
from opd.commands.train.plan import Plan, agreed, drafted, fresh, resumed
from opd.config.blame import blaming
from opd.config.compose import Composed, Draft, read_back
from opd.devices.team import first_rank
from opd.protocols import Devices
from opd.run.checkpoint import checkpoints
from opd.run.directory import RunFolder, refuse_separate
from opd.run.ending import Ending, ending
from opd.run.interrupt import StopSignal
from opd.run.owner import owned
from opd.run.ways import way

if TYPE_CHECKING:
    from opd.console import Console


@dataclass(frozen=True)
class Order(jobs.Order):
    """What `opd train` was asked for."""

    resume: bool = False
    yaml: str = ""
    """A config that is composed already, in place of `conf`; the overrides are in it."""


class Training(jobs.Ordered[Order, Path]):
    """A run being trained; its result is the run's folder."""

    kind = "train"

    def __init__(
        self, order: Order, *, composed: Composed | None = None, console: Console | None = None,
        begun: Callable[[str], None] = lambda run: None,
    ) -> None:  # fmt: skip
        """`composed` is what `order.yaml` says."""
        super().__init__(order, console=console, begun=begun)
        self._composed = composed

    @cached_property
    def asked(self) -> Draft | Composed:
        """The config, looked into as little as is needed to know where it computes."""
        if self._composed is None and self.order.yaml:
            return read_back(self.order.yaml, tuple(self.order.overrides))
        return self._composed or drafted(self.order.named, self.order.overrides, self.order.resume, self.order.parts)

    @property
    def devices(self) -> Devices:
        """Where it computes."""
        return self.asked.devices if isinstance(self.asked, Draft) else self.asked.config.devices

    def plan(self) -> Plan:
        """What will be done."""
        if self.order.resume and isinstance(self.asked, Draft):
            return resumed(self.order.named, self.order.overrides, self.order.parts, self.asked)
        return fresh(self.asked, self.order.overrides, self.order.named.get("run"))

    def here(self) -> Path:
        """Train in this process, with those that it joins."""
        with self.devices.join() as team, ExitStack() as stack:
            plan = agreed(team, self.plan)
            refuse_separate(plan.run, team)
            mine = owned(plan.run, begun=self.order.resume, free=plan.free)
            owner = first_rank(team, lambda: stack.enter_context(mine))
            made, path = plan.composed, owner.run.path
            end = stack.enter_context(ending(owner.run)) if team.rank == 0 else Ending()
            self.begun(str(path))
            from opd.loop import train

            with self.shown(team.rank) as shown:
                if owner.note:
                    shown.warn(owner.note)
                for note in made.notes:
                    shown.say(note)
                with blaming(made.settings):
                    over = train(made.config, owner.run, shown, yaml=made.yaml, overrides=made.overrides, team=team)
                end.why = over or ""
                done = f"done, {over}: {path}" if over else f"done: {path}"
                shown.finish(f"{done}   next:  {way('eval', owner.run)}   {way('export', owner.run)}")
        return path

    def listening(self) -> AbstractContextManager[StopSignal]:
        """The first signal ends the step, and saves the state."""
        return StopSignal()

    def told(self, result: Path) -> str:
        """The folder's path."""
        return str(result)

    def heard(self, told: str) -> Path:
        """The folder."""
        return Path(told)

    def way_on(self, run: str) -> str:
        """How a run that was broken off is gone on with."""
        there = RunFolder(Path(run))
        if run and checkpoints(there.checkpoints):
            return f"the run can go on from its last checkpoint:  {way('train --resume', there)}"
        if run and there.config.is_file():
            return f"there is no checkpoint yet; the run can begin anew:  {way('train --resume', there)}"
        return "there is no checkpoint yet; start again"
