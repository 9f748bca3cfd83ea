"""No console at all: of several processes that compute one run, the first one talks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from opd.console.base import Metrics
from opd.console.history import Sample


class SilentJob:
    """Work that nobody is told of."""

    def update(self, done: float, total: float | None = None) -> None:
        """Say nothing."""


class SilentConsole:
    """A console that says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[SilentJob]:
        """Give something to report to."""
        yield SilentJob()

    def say(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing: what matters to people, rank 0 says."""

    def begin(self, name: str, steps: int, done: int = 0, history: Sequence[Metrics] = ()) -> None:
        """Say nothing."""

    def phase(self, name: str) -> None:
        """Say nothing."""

    def step(self, step: int, metrics: Metrics, sample: Sample | None = None) -> None:
        """Say nothing."""

    def table(self, rows: Mapping[str, Metrics], *, title: str, temperature: float, max_tokens: int) -> None:
        """Say nothing."""

    def costs(self, totals: Metrics) -> None:
        """Say nothing."""

    def finish(self, text: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Do nothing."""
