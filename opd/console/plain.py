"""Lines of plain text: for pipes, log files, dumb terminals and `NO_COLOR`; and next to nothing for `-q`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from opd.console import figures
from opd.console.base import Metrics
from opd.console.history import History, Sample, Verdict
from opd.console.tables import Grid, cost_grid, eval_grid
from opd.hints import printable

# (key in the line, metric, its format); the order and the keys are what people grep for.
STEP_FIELDS: tuple[tuple[str, str, str], ...] = (
    ("kl", "kl/sampled", ".4f"),
    ("kl_exact", "kl/exact", ".4f"),
    ("reward", "rollout/reward", ".3f"),
    ("length", "rollout/length", ".1f"),
    ("truncated", "rollout/truncated", ".3f"),
    ("grad_norm", "optim/grad_norm", ".3g"),
    ("generate_tok/s", "perf/generate_tokens_s", ".0f"),
    ("score_tok/s", "perf/score_tokens_s", ".0f"),
    ("update_tok/s", "perf/update_tokens_s", ".0f"),
    ("memory_gb", "perf/peak_memory_gb", ".2f"),
    ("seconds", "perf/step_s", ".2f"),
)
EVAL_FIELDS: tuple[tuple[str, str, str], ...] = (
    ("accuracy", "eval/accuracy", ".3f"),
    ("low", "eval/accuracy_low", ".3f"),
    ("high", "eval/accuracy_high", ".3f"),
    ("kl", "eval/kl", ".4f"),
    ("length", "eval/length", ".1f"),
    ("truncated", "eval/truncated", ".3f"),
)
EVERY = 10.0
"""Seconds between two lines of one task's progress."""


def fields(metrics: Metrics, spec: Sequence[tuple[str, str, str]]) -> list[str]:
    """Write the metrics that are there as `key=value`."""
    return [f"{key}={metrics[name]:{form}}" for key, name, form in spec if name in metrics]


def draw(grid: Grid) -> list[str]:
    """Draw a table in aligned columns: the first to the left, the others to the right."""
    table = [grid.header, *grid.rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(grid.header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    return [grid.title.replace("·", "-"), lines[0], "-" * len(lines[0]), *lines[1:]]


class PlainJob:
    """A task whose progress is a line now and then."""

    def __init__(self, name: str, total: float | None, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._name, self._total, self._say, self._clock = name, total, say, clock
        self._begun = self._said = clock()

    def update(self, done: float, total: float | None = None) -> None:
        """Say how much is done, but not more often than every ten seconds."""
        self._total = total if total is not None else self._total
        if self._clock() - self._said >= EVERY:
            self._said = self._clock()
            of = f"/{self._total:g}" if self._total is not None else ""
            self._say(f"{self._name}: {done:g}{of}, {figures.seconds(self.seconds)}")

    @property
    def seconds(self) -> float:
        """Seconds since the task began."""
        return self._clock() - self._begun


class PlainConsole:
    """One line a step to `out`, warnings to `err`; with `quiet` only warnings and the last line."""

    def __init__(
        self, out: TextIO, err: TextIO, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._err, self._quiet, self._clock = out, err, quiet, clock
        self._history: History | None = None
        self._wrong: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[PlainJob]:
        """Announce the task, then tell how long it took."""
        self.say(f"{name} ...")
        job = PlainJob(name, total, self.say, self._clock)
        try:
            yield job
        except BaseException:
            self.say(f"{name}: failed after {figures.seconds(job.seconds)}")
            raise
        self.say(f"{name}: {figures.seconds(job.seconds)}")

    def say(self, text: str) -> None:
        """Write a line; flushed, because a pipe is read while the run goes on."""
        if not self._quiet:
            self._line(text, self._out)

    def warn(self, text: str) -> None:
        """Write a line to `err`."""
        self._line(f"warning: {text}", self._err)

    def begin(self, name: str, steps: int, done: int = 0, history: Sequence[Metrics] = ()) -> None:
        """Say which steps follow."""
        self._history = History(name, steps, self._clock, first=done)
        self.say(f"training {name}: steps {done + 1} to {steps}")

    def phase(self, name: str) -> None:
        """Say nothing: phases change several times a step."""

    def step(self, step: int, metrics: Metrics, sample: Sample | None = None) -> None:
        """Write the line of a step, and one of its eval where there was one."""
        of, eta = "", []
        if self._history is not None:
            self._history.add(step, metrics)
            of, eta = f"/{self._history.steps}", [f"eta={figures.clock(self._history.eta)}"]
        if line := fields(metrics, STEP_FIELDS):
            self.say(" ".join([f"step={step}{of}", *line, *eta]))
        if line := fields(metrics, EVAL_FIELDS):
            self.say(" ".join([f"eval step={step}{of}", *line]))

    def verdicts(self, found: Sequence[Verdict], *, last: bool = False) -> None:
        """Warn of what is new, at the end of all, and say what is over."""
        now = {verdict.name for verdict in found}
        for verdict in found:
            if last or verdict.name not in self._wrong:
                self.warn(str(verdict))
        for name in sorted(self._wrong - now):
            self.say(f"no longer: {name}")
        self._wrong = now

    def table(self, rows: Mapping[str, Metrics], *, title: str, temperature: float, max_tokens: int) -> None:
        """Write the eval table."""
        self._draw(eval_grid(rows, title=title, temperature=temperature, max_tokens=max_tokens))

    def costs(self, totals: Metrics) -> None:
        """Write the table of costs."""
        self._draw(cost_grid(totals))

    def _draw(self, grid: Grid) -> None:
        for line in ["", *draw(grid)]:
            self.say(line)

    def finish(self, text: str) -> None:
        """Write the last line."""
        self._line(text, self._out)

    @staticmethod
    def _line(text: str, stream: TextIO) -> None:
        print(printable(text), file=stream, flush=True)

    def close(self) -> None:
        """Do nothing: there is no terminal to give back."""
