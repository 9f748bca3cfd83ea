"""A command that this process carries out, or several that do the same: what was asked for, and how it ends."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from opd import children
from opd.devices.launch import Stop
from opd.devices.report import Report
from opd.plain import plain
from opd.protocols import Devices
from opd.run.interrupt import Interrupted
from opd.types import RunError, UserError

if TYPE_CHECKING:
    from opd.console import Console


@dataclass(frozen=True)
class Order:
    """What a command was asked for, in words that can be sent to another process."""

    named: Mapping[str, str]
    """`conf`, `run` and what else is no setting, as far as they are given."""
    overrides: Sequence[str] = ()
    quiet: bool = False
    debug: bool = False
    aside: bool = False
    """Report to stderr: stdout is for JSON."""
    parts: Sequence[str] = ()
    """Modules and packages beyond those that ship whose classes a run's config may name."""
    path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))
    """Where Python finds what the config names."""


AnyOrder = TypeVar("AnyOrder", bound=Order)
R = TypeVar("R")


class Ordered(ABC, Generic[AnyOrder, R]):
    """An order being carried out; where it computes decides about the processes (`opd.devices.launch.Job`)."""

    kind: ClassVar[str]
    """By which `opd.rank` knows what to do."""
    command = tuple(children.command("opd.rank"))

    def __init__(
        self, order: AnyOrder, *, console: Console | None = None, begun: Callable[[str], None] = lambda run: None
    ) -> None:
        """`begun` is told of the run's folder as soon as there is one."""
        self.order, self.console, self.begun = order, console, begun

    @property
    @abstractmethod
    def devices(self) -> Devices:
        """Where it computes."""

    @abstractmethod
    def here(self) -> R:
        """Carry the order out in this process, with those that it joins; the first one talks."""

    @abstractmethod
    def listening(self) -> AbstractContextManager[Stop]:
        """Take signals over."""

    @abstractmethod
    def way_on(self, run: str) -> str:
        """What to do where a process has died; `run` is the folder that it had begun with, if any."""

    def carry_out(self) -> R:
        """Do it, wherever that is."""
        made: R = self.devices.start(self)
        return made

    def told(self, result: R) -> Any:
        """The result in values that JSON knows, for the process that waits for it; `heard` takes them back."""
        return result

    def heard(self, told: Any) -> R:
        """What `here` has returned in the first process."""
        result: R = told
        return result

    @property
    def text(self) -> str:
        """The order, for `opd.rank`."""
        if self.console is not None:
            raise UserError("console: a run in processes of its own cannot report to it; leave it out, or set quiet")
        return json.dumps({"kind": self.kind} | asdict(self.order))

    def shown(self, rank: int) -> Console:
        """Where a process reports to."""
        from opd.console import make_console
        from opd.console.silent import SilentConsole

        if rank:
            return SilentConsole()
        stream = sys.stderr if self.order.aside else None
        return self.console or make_console(stream, quiet=self.order.quiet, plain=self.order.debug)

    def ended(self, report: Report) -> R:
        """The result; raises what its processes have ended with."""
        if report.trace and (self.order.debug or report.kind == "died"):
            print(report.trace, file=sys.stderr)
        match report.kind:
            case "done":
                return self.heard(report.result)
            case "mistake":
                raise UserError(report.message)
            case "interrupted":
                raise Interrupted(report.signal, report.message)
            case "died" | "lost":
                raise RunError(f"{report.message}; {self.way_on(report.run)}")
        raise RunError(report.message)


def read(text: str) -> tuple[str, dict[str, Any]]:
    """What `Ordered.text` says: the job's kind, and the fields of its order."""
    said: dict[str, Any] = plain(text)
    return said.pop("kind"), said
