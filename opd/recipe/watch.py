"""What people see while a recipe runs: a line per stage, and on a terminal the stages under way."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from opd.recipe.stage import Stage

EVERY = 1.0
"""Seconds between two drawings."""


class Watch:
    """Used in a `with` statement; draws the stages under way where the stream is a terminal, if not `plain`."""

    def __init__(self, console: Console, plain: bool = False) -> None:
        self._console = console
        drawn = console.is_terminal and not plain
        self._live = Live(console=console, auto_refresh=False, transient=True) if drawn else None
        self._under_way: dict[str, tuple[float, float | None]] = {}
        self._drawn = 0.0
        self._total = self._ended = 0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, total: int, done: int) -> None:
        """Say how much there is to do."""
        self._total, self._ended = total, done
        self.say(f"{total} stages" + (f", {done} of them done before" if done else ""))

    def started(self, stage: Stage) -> None:
        """A stage begins."""
        self._under_way[stage.name] = (time.monotonic(), None)
        if self._live is None:
            self.say(f"begin {stage.name}: {stage.says}")

    def at(self, stage: Stage, steps: float | None) -> None:
        """Where a stage under way is."""
        self._under_way[stage.name] = (self._under_way[stage.name][0], steps)
        now = time.monotonic()
        if self._live is not None and now - self._drawn > EVERY:
            self._drawn = now
            self._live.update(self._picture(now), refresh=True)

    def ended(self, stage: Stage, seconds: float, end: str, code: int) -> None:
        """A stage has ended: done, stopped as it was asked to, or failed with the exit code of its process."""
        del self._under_way[stage.name]
        self._ended += end == "done"
        why = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        said = f"FAILED ({why})" if end == "failed" else end
        self.say(f"[{self._ended}/{self._total}] {stage.name}: {said} after {clock(seconds)}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _picture(self, now: float) -> Text:
        lines = [f"[{self._ended}/{self._total}]"]
        for name, (since, steps) in self._under_way.items():
            lines.append(f"  {name:32} {clock(now - since):>8}" + ("" if steps is None else f"   step {steps:.0f}"))
        return Text("\n".join(lines))


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
