"""What a run has shown so far: the series behind the sparklines and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """One completion to show."""

    prompt: str
    completion: str
    reward: float | None = None
    pieces: Sequence[tuple[str, float]] | None = None
    """The completion token by token, each with `log mu - log q`: how much less likely the teacher found it, in nats."""


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong with a run."""

    name: str
    """In two or three words; the same finding has the same ones."""
    seen: str
    """The figures."""
    means: str
    """What that is."""
    do: str
    """What to change."""

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}. {self.means} {self.do}"


@dataclass
class History:
    """Metrics by name, and a clock. Step n is the n-th optimizer step; 0 is before the first."""

    name: str
    steps: int
    clock: Callable[[], float]
    first: int = 0
    """Steps that were done before this process began."""
    step: int = field(init=False)
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Name to (step, value), in step order."""
    begun: float = field(init=False)
    _mark: tuple[int, float] | None = None
    _latest: float = 0.0

    def __post_init__(self) -> None:
        self.step = self.first
        self.begun = self._latest = self.clock()

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of a step, without touching the clock: for those of an earlier process."""
        for name, value in metrics.items():
            self.series.setdefault(name, []).append((step, value))

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of a step that was just done."""
        self.record(step, metrics)
        self.step = step
        self._latest = self.clock()
        # The first step pays for warm-up (compilation, caches): the pace is measured from its end.
        if self._mark is None and step > self.first:
            self._mark = (step, self._latest)

    def values(self, name: str) -> list[float]:
        """All values of a metric."""
        return [value for _, value in self.series.get(name, [])]

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        return self.series[name][-1][1] if name in self.series else None

    @property
    def elapsed(self) -> float:
        """Seconds since training began in this process."""
        return self.clock() - self.begun

    @property
    def eta(self) -> float | None:
        """Seconds that are left at the mean pace so far; None before the first step."""
        if self._mark is None:
            return None
        step, at = self._mark
        spent, steps = (
            (self._latest - at, self.step - step) if self.step > step else (at - self.begun, step - self.first)
        )
        pace = spent / steps
        return max(0.0, pace * (self.steps - self.step) - (self.clock() - self._latest))
