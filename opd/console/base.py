"""What a run needs to tell people, whatever the form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from opd.console.history import Sample, Verdict

Metrics = Mapping[str, float]


class Job(Protocol):
    """Work under way that `Console.task` announced."""

    def update(self, done: float, total: float | None = None) -> None:
        """Say how much of the total is done."""
        ...


class Console(Protocol):
    """Where a run reports to. Used as a context manager, which gives the terminal back however the block ends."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def task(self, name: str, total: float | None = None) -> AbstractContextManager[Job]:
        """Announce work that takes a while: a spinner, or a bar where a total is known."""
        ...

    def say(self, text: str) -> None:
        """Tell something in passing."""
        ...

    def warn(self, text: str) -> None:
        """Tell something that must be seen, even in quiet mode."""
        ...

    def begin(self, name: str, steps: int, done: int = 0, history: Sequence[Metrics] = ()) -> None:
        """Begin training; `done` steps and their `history` (rows of `read_metrics`) come from an earlier process."""
        ...

    def phase(self, name: str) -> None:
        """Tell which phase of a step begins."""
        ...

    def step(self, step: int, metrics: Metrics, sample: Sample | None = None) -> None:
        """Report a step: the n-th optimizer step has number n, and 0 is the eval before the first."""
        ...

    def verdicts(self, found: Sequence[Verdict], *, last: bool = False) -> None:
        """Show all that is wrong with the run by now, in place of what was; `last`: the run has ended with it."""
        ...

    def table(self, rows: Mapping[str, Metrics], *, title: str, temperature: float, max_tokens: int) -> None:
        """Show eval results side by side: name of the row to its `eval/...` metrics."""
        ...

    def costs(self, totals: Metrics) -> None:
        """Show what the whole run has cost: the `cost/...` metrics of its last step."""
        ...

    def finish(self, text: str) -> None:
        """Show the last line, even in quiet mode."""
        ...

    def close(self) -> None:
        """Give the terminal back; calling it twice is fine."""
        ...
