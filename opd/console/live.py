"""The live form: a calm panel at the bottom of the terminal, everything else scrolling above it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from rich.console import RenderableType
from rich.control import Control
from rich.live import Live
from rich.text import Text

from opd.console import figures
from opd.console.base import Metrics
from opd.console.history import History, Sample, Verdict
from opd.console.panel import BLUE, LABEL, ORANGE, Doing, RunPanel, boxed, task_lines
from opd.console.tables import Grid, cost_grid, eval_grid
from opd.console.terminal import Terminal
from opd.hints import printable

REFRESH = 0.4
"""Seconds between two pictures: the clock and the spinner move, and the run keeps its cores."""


class LiveConsole:
    """A panel on the terminal behind `stream`. One lock: a thread redraws while the run reports."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = Terminal(stream)
        self._rich = self._terminal.console
        self._clock = clock
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="console", daemon=True)
        self._live: Live | None = None
        self._tasks: list[Doing] = []
        self._panel: RunPanel | None = None

    def __enter__(self) -> Self:
        self._terminal.take()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[Doing]:
        """Show the task while it lasts; of those before training a line stays."""
        doing = Doing(name, self._clock(), total=total)
        with self._lock:
            self._tasks.append(doing)
            self._show()
        done = False
        try:
            yield doing
            done = True
        finally:
            with self._lock:
                self._tasks.remove(doing)
                if not done or self._panel is None:
                    took = f"  {figures.seconds(self._clock() - doing.begun)}"
                    mark = ("✓ ", BLUE) if done else ("✗ ", ORANGE)
                    self._print(Text.assemble(mark, printable(name), (took if done else f"{took}, failed", LABEL)))
                self._show()

    def say(self, text: str) -> None:
        """Print a line above the panel."""
        self._print(Text(printable(text)))

    def warn(self, text: str) -> None:
        """Print a warning above the panel."""
        self._print(Text.assemble(("! warning: ", f"bold {ORANGE}"), printable(text)))

    def begin(self, name: str, steps: int, done: int = 0, history: Sequence[Metrics] = ()) -> None:
        """Put the panel up."""
        past = History(name, steps, self._clock, first=done)
        for row in history:
            past.record(int(row["step"]), {key: value for key, value in row.items() if key != "step"})
        with self._lock:
            self._panel = RunPanel(past)
            self._show()

    def phase(self, name: str) -> None:
        """Name the phase in the panel's lower border."""
        if self._panel is not None:
            self._panel.phase = name

    def step(self, step: int, metrics: Metrics, sample: Sample | None = None) -> None:
        """Update the panel; it is drawn at the next tick, however fast the steps are."""
        if self._panel is not None:
            with self._lock:
                self._panel.history.add(step, metrics)
                self._panel.sample = sample or self._panel.sample

    def verdicts(self, found: Sequence[Verdict], *, last: bool = False) -> None:
        """Put them into the panel, a line each; what they mean is printed at the end."""
        with self._lock:
            if self._panel is not None:
                self._panel.verdicts = tuple(found)
            for verdict in found if last or self._panel is None else ():
                self.warn(str(verdict))

    def table(self, rows: Mapping[str, Metrics], *, title: str, temperature: float, max_tokens: int) -> None:
        """Leave the panel as it is and print the eval table below it."""
        self._terminal.fit()
        width = self._rich.width
        self._draw(eval_grid(rows, title=title, temperature=temperature, max_tokens=max_tokens, width=width))

    def costs(self, totals: Metrics) -> None:
        """Leave the panel as it is and print the table of costs below it."""
        self._terminal.fit()
        self._draw(cost_grid(totals, width=self._rich.width))

    def finish(self, text: str) -> None:
        """Leave the panel as it is and print the last line."""
        with self._lock:
            self._freeze()
            self._print(Text(printable(text)))

    def close(self) -> None:
        """Freeze the panel and give the terminal back; calling it twice is fine."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        with self._lock:
            self._forward(self._terminal.caught())
            self._freeze()
            self._forward(self._terminal.give_back())
            self._terminal.close()

    def _draw(self, grid: Grid) -> None:
        with self._lock:
            self._freeze()
            self._print(boxed(grid))

    def _print(self, what: RenderableType) -> None:
        with self._lock:
            self._forward(self._terminal.caught())
            self._rich.print(what)

    def _forward(self, lines: Sequence[str]) -> None:
        """Print above the panel what other libraries wrote to stdout and stderr."""
        if lines:
            seen = (Text.from_ansi(printable(line, keep="\x1b\t"), style=LABEL) for line in lines)  # with their colours
            self._rich.print(Text("\n").join(seen))

    def _show(self) -> None:
        """Start or stop drawing, as there is something to show or not."""
        if self._live is None and (self._tasks or self._panel):
            self._live = Live(
                console=self._rich, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
                get_renderable=self._frame, transient=self._panel is None,
            )  # fmt: skip
            self._terminal.drawing = True
            self._live.start(refresh=True)
        elif self._live is not None and not self._tasks and not self._panel:
            self._end_live()
        elif self._live is not None:
            self._live.transient = self._panel is None
            self._live.refresh()

    def _freeze(self) -> None:
        """Leave the panel where it is, as it is, and draw no more of it."""
        if self._panel is not None:
            self._panel.phase, self._panel.tasks = "", ()
        if self._live is not None:
            self._end_live()
        self._panel = None

    def _end_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        self._terminal.drawing = False

    def _frame(self) -> RenderableType:
        if self._panel is None:
            return task_lines(self._tasks, self._clock())
        self._panel.tasks = tuple(self._tasks)
        return self._panel

    def _tick(self) -> None:
        while not self._stop.wait(REFRESH):
            with self._lock:
                self._forward(self._terminal.caught())
                if self._live is not None:
                    if self._terminal.fit() or self._terminal.stale:
                        # The old picture was wrapped or written over: where its first line is now, no one knows.
                        self._terminal.stale = False
                        self._rich.control(Control.clear(), Control.home())
                    self._live.refresh()
