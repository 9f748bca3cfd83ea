"""Two runs against each other: how far their figures are apart, beyond noise or not, and where their curves part."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any

from opd.report.paired import completions, paired
from opd.report.record import Record

Row = Mapping[str, float]
CURVES = (
    "kl/exact", "kl/sampled", "rollout/reward", "rollout/length", "rollout/truncated", "kl/student_entropy",
    "optim/grad_norm",
)  # fmt: skip
"""What is compared step by step."""
FEWEST = 20
"""Shared steps below which nothing is said of a curve: there is no telling noise from a difference."""
ERRORS = 4.0
"""Standard errors that are more than noise, of the many windows that are looked at."""


@dataclass(frozen=True)
class Curve:
    """A figure of both runs over the steps that both have."""

    metric: str
    steps: int
    """How many both have."""
    ends: tuple[float, float]
    """Each run's mean over the last tenth of the steps (`window`)."""
    difference: float | None
    """Of the ends, second less first; None, as all below, where there are too few steps."""
    error: float | None
    """Its standard error, from what changes from step to step; shared noise (the same prompts) cancels."""
    window: int
    parted: int | None
    """The step from which on every mean over a window differs beyond noise; None: in the end they do not."""
    met: int | None
    """Where they do not differ in the end: the last step of the last window in which they did, if there was one."""


def curve(first: Sequence[Row], second: Sequence[Row], metric: str) -> Curve | None:
    """Compare a figure of two runs step by step; None where they share no step that has it."""
    ours, theirs = _points(first, metric), _points(second, metric)
    steps = sorted(ours.keys() & theirs.keys())
    if not steps:
        return None
    window = min(len(steps), max(5, len(steps) // 10))
    ends = fmean([ours[s] for s in steps[-window:]]), fmean([theirs[s] for s in steps[-window:]])
    if len(steps) < FEWEST:
        return Curve(metric, len(steps), ends, None, None, window, None, None)
    apart = [theirs[s] - ours[s] for s in steps]
    error = spread(apart) / math.sqrt(window)
    beyond = [abs(fmean(apart[i : i + window])) > ERRORS * error for i in range(len(apart) - window + 1)]
    since = next((i for i in range(len(beyond) - 1, -1, -1) if not beyond[i]), -1) + 1
    parted = int(steps[since]) if since < len(beyond) else None
    met = max((i for i, found in enumerate(beyond) if found), default=None) if parted is None else None
    return Curve(
        metric, len(steps), ends, fmean(apart[-window:]), error, window, parted,
        None if met is None else int(steps[met + window - 1]),
    )  # fmt: skip


def _points(rows: Sequence[Row], metric: str) -> dict[float, float]:
    return {row["step"]: row[metric] for row in rows if row["step"] >= 1 and math.isfinite(row.get(metric, math.nan))}


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a value about its trend, from the changes of one to the next; a few leaps are not noise.

    Where most do not change at all, the leaps are all the noise there is.
    """
    changes = [b - a for a, b in itertools.pairwise(values)]
    return (1.4826 * median(map(abs, changes)) or pstdev(changes)) / math.sqrt(2)


def alike(first: Sequence[Row], second: Sequence[Row]) -> int | None:
    """The last step up to which both runs wrote the same figures to the bit, seconds aside; None: no step is."""
    last = None
    for a, b in zip(first, second, strict=False):
        if _figures(a) != _figures(b):
            break
        last = int(a["step"])
    return last


def _figures(row: Row) -> dict[str, str]:
    timed = ("perf/", "cost/", "eval/seconds")
    return {name: repr(value) for name, value in row.items() if not name.startswith(timed)}


@dataclass(frozen=True)
class Measured:
    """A figure of an evaluation, of both runs."""

    model: str
    """Which row of the evaluations it is of."""
    metric: str
    values: tuple[float, float]
    intervals: tuple[tuple[float, float], tuple[float, float]] | None
    """95% each; None: there is none, and what the difference says is not known."""
    difference: float
    """Second less first."""
    low: float | None
    high: float | None
    """95% interval of the difference: prompt by prompt, or as if each had its own (Newcombe, 1998, method 10)."""
    paired: bool = False
    """Whether it is prompt by prompt."""

    @property
    def beyond(self) -> bool | None:
        """Whether the difference is more than noise; None where that is not known."""
        return None if self.low is None or self.high is None else not self.low <= 0.0 <= self.high


FIGURES = ("eval/accuracy", "eval/pass@", "eval/avg@", "eval/kl", "eval/perplexity", "eval/length", "eval/truncated")
"""How names of what is compared begin."""


ENDS = re.compile(r"^eval/[^/]*(_low|_high|_per_byte)(/|$)")
"""Names of what goes with another figure."""


def measured(model: str, first: Mapping[str, float], second: Mapping[str, float]) -> list[Measured]:
    """Compare the figures that two evaluations have both."""
    names = [n for n in first if n in second and n.startswith(FIGURES) and not ENDS.search(n)]
    return [_measured(model, name, first, second) for name in names]


def _measured(model: str, name: str, first: Mapping[str, float], second: Mapping[str, float]) -> Measured:
    a, b = first[name], second[name]
    low, high = (_end(name, end) for end in ("_low", "_high"))
    if not all(end in side for end in (low, high) for side in (first, second)):
        return Measured(model, name, (a, b), None, b - a, None, None)
    ends = (first[low], first[high]), (second[low], second[high])
    down = math.hypot(b - ends[1][0], ends[0][1] - a)
    up = math.hypot(ends[1][1] - b, a - ends[0][0])
    return Measured(model, name, (a, b), ends, b - a, b - a - down, b - a + up)


def _end(name: str, end: str) -> str:
    """Name of the end of an interval: `eval/accuracy_low`, of one task `eval/accuracy_low/TASK`."""
    kind, figure, *task = name.split("/", 2)
    return "/".join([kind, figure + end, *task])


def evaluations(pair: tuple[Record, Record]) -> tuple[list[Measured], list[str]]:
    """What `opd eval`, else training itself, has measured of both; and why figures cannot be compared, if so."""
    first, second = map(_kinds, pair)
    found: list[Measured] = []
    notes: list[str] = []
    for model in [model for model in first if model in second]:
        if why := unequal(pair, first[model], second[model]):
            notes.append(f"{model}: not compared, as it was not measured alike: {why}")
        else:
            found += by_prompt(
                measured(model, *(side[model]["metrics"] for side in (first, second))), first[model], second[model]
            )
    return found, notes


def by_prompt(found: Sequence[Measured], first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Measured]:
    """The same, with intervals that prompts in common make narrower, where both evaluations have kept completions."""
    kept = [completions(Path(side["file"]).with_suffix(".jsonl")) if "file" in side else [] for side in (first, second)]
    pairs = paired(kept[0], kept[1], {m.metric: m.values for m in found})
    return [
        m if (p := pairs.get(m.metric)) is None
        else replace(m, intervals=m.intervals or p.intervals, low=p.low, high=p.high, paired=True)
        for m in found
    ]  # fmt: skip


def _kinds(record: Record) -> dict[str, Mapping[str, Any]]:
    """Evaluations by what they are of, whoever has made them: the student before, after so many steps, the teacher."""
    kinds: dict[str, Mapping[str, Any]] = {}
    for name, found in record.evaluations.items():
        after = name.startswith(("student after ", "student, step ")) and name != "student, step 0"
        kinds["student after" if after else "student before" if name.startswith("student") else name] = found
    return kinds


def unequal(pair: tuple[Record, Record], first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Why two evaluations are not of the same prompts and the same sampling; empty where they are."""
    odd = [
        f"{key} is {first['sampling'].get(key)} and {second['sampling'].get(key)}"
        for key in first["sampling"] if key != "seed" and first["sampling"].get(key) != second["sampling"].get(key)
    ]  # fmt: skip
    sizes = [found["metrics"].get("eval/count") for found in (first, second)]
    if sizes[0] != sizes[1]:
        odd.append(
            f"of {sizes[0]:g} and {sizes[1]:g} completions" if None not in sizes else "their sizes are not known"
        )
    elif len({str(p["digest"]) for found in (first, second) if (p := found.get("prompts", {})).get("digest")}) > 1:
        odd.append("the prompts are not the same")  # `opd eval` may have been given others than the run's
    settings = [
        {k: v for k, v in r.settings.items() if k.startswith(("data.tasks.", "data.system", "data.template"))}
        for r in pair
    ]
    keys = sorted(k for k in settings[0].keys() | settings[1].keys() if settings[0].get(k) != settings[1].get(k))
    return ", ".join([*odd, *(f"{key} differs" for key in keys[:2])])
