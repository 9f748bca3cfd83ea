"""`opd train`: what was asked for, carried out in this process or by several that do the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opd.commands.plan import Plan, agreed, drafted, fresh, resumed
from opd.config.compose import Composed, Draft, read_back
from opd.devices.report import Report
from opd.protocols import Devices
from opd.run.directory import RunFolder
from opd.run.interrupt import Interrupted, StopSignal
from opd.types import RunError, UserError

if TYPE_CHECKING:
    from opd.console import Console


@dataclass(frozen=True)
class Order:
    """What `opd train` was asked for, in words that can be sent to another process."""

    named: Mapping[str, str]
    """`conf` and `run`, as far as they are given."""
    overrides: Sequence[str] = ()
    resume: bool = False
    yaml: str = ""
    """A config that is composed already, in place of `conf`; the overrides are in it."""
    quiet: bool = False
    debug: bool = False
    path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))
    """Where Python finds what the config names."""


class Training:
    """An order being carried out; where it computes decides about the processes (`opd.devices.launch.Job`)."""

    command = (sys.executable, "-m", "opd.rank")

    def __init__(
        self, order: Order, *, composed: Composed | None = None, console: Console | None = None,
        begun: Callable[[str], None] = lambda run: None,
    ) -> None:  # fmt: skip
        """`composed` is what `order.yaml` says; `begun` is told of the run's folder as soon as there is one."""
        self.order, self.console, self.begun = order, console, begun
        self._composed = composed

    @cached_property
    def asked(self) -> Draft | Composed:
        """The config, looked into as little as is needed to know where it computes."""
        if self._composed is None and self.order.yaml:
            return read_back(self.order.yaml, tuple(self.order.overrides))
        return self._composed or drafted(self.order.named, self.order.overrides, self.order.resume)

    @property
    def devices(self) -> Devices:
        """Where it computes."""
        return self.asked.devices if isinstance(self.asked, Draft) else self.asked.config.devices

    def carry_out(self) -> Path:
        """Train, and return the run's folder."""
        made: Path = self.devices.start(self)
        return made

    def plan(self) -> Plan:
        """What will be done."""
        if self.order.resume and isinstance(self.asked, Draft):
            return resumed(self.order.named, self.order.overrides, self.asked)
        return fresh(self.asked, self.order.overrides, self.order.named.get("run"))

    @property
    def text(self) -> str:
        """The order, for `opd.rank`."""
        if self.console is not None:
            raise UserError("console: a run in processes of its own cannot report to it; leave it out, or set quiet")
        return json.dumps(asdict(self.order))

    def here(self) -> Path:
        """Carry the order out in this process, with those that it joins; the first one talks."""
        with self.devices.join() as team:
            plan = agreed(team, self.plan)
            made, path = plan.composed, plan.run.path
            self.begun(str(path))
            from opd.loop import train

            with self.console or self._console(team.rank) as shown:
                if not plan.finished:
                    train(made.config, plan.run, shown, yaml=made.yaml, overrides=made.overrides, team=team)
                shown.finish(f"done: {path}   next:  opd eval run={path}   opd export run={path}")
        return path

    def _console(self, rank: int) -> Console:
        from opd.console import make_console
        from opd.console.silent import SilentConsole

        return SilentConsole() if rank else make_console(quiet=self.order.quiet, plain=self.order.debug)

    def listening(self) -> AbstractContextManager[StopSignal]:
        """Take signals over."""
        return StopSignal()

    def ended(self, report: Report) -> Path:
        """The run's folder; raises what its processes have ended with."""
        if report.trace and (self.order.debug or report.kind == "died"):
            print(report.trace, file=sys.stderr)
        match report.kind:
            case "done":
                return Path(report.run)
            case "mistake":
                raise UserError(report.message)
            case "interrupted":
                raise Interrupted(report.signal, report.message)
            case "died" | "lost":
                raise RunError(f"{report.message}; {way_on(report.run)}")
        raise RunError(report.message)


def way_on(run: str) -> str:
    """How a run that was broken off is gone on with."""
    if run and any(RunFolder(Path(run)).checkpoints.glob("step_*")):
        return f"the run can go on from its last checkpoint:  opd train --resume run={run}"
    return "there is no checkpoint to go on from yet; start again" + (" in another folder" if run else "")


def order_from(text: str) -> Order:
    """What `Training.text` says."""
    said: dict[str, Any] = json.loads(text)
    return Order(**said)
