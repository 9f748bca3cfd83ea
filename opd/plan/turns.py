"""Who writes in a step, how much, and how often others in its place: what a source asks engines for, at most."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opd.config.settings import Config
from opd.sources.around import Around
from opd.sources.by_task import ByTask
from opd.sources.dataset import DatasetSource
from opd.sources.filtered import Filtered
from opd.sources.gated import Gated
from opd.sources.mixed import Mixed
from opd.sources.recorded import Recorded
from opd.sources.teacher import TeacherSource
from opd.sources.teacher_mixed import TeacherMixed


@dataclass(frozen=True)
class Turn:
    """Completions that one engine writes together."""

    prompts: float
    """Of a step."""
    n: int
    """Of each prompt."""
    rounds: int
    """Once, and again for others in the place of prompts that are given up, as if it were all of them each time."""
    own: Any = None
    """The source whose own engine writes; None: the run's engine does."""
    asked: bool = False
    """Whether they tell of a prompt alone, as if it was new, and are written with all the room that there is."""


def turns(config: Config) -> Iterator[Turn]:
    """What the source of a run has written in each step."""
    yield from _turns(config, config.source, config.data.prompts_per_step, 1)


def _turns(config: Config, source: Any, prompts: float, rounds: int) -> Iterator[Turn]:
    n = config.sampling.n
    if isinstance(source, Gated):
        yield Turn(prompts, source.samples, rounds * (1 + source.redraws), source, asked=True)
    if isinstance(source, Around):
        again = source.redraws if isinstance(source, Filtered) else 0
        yield from _turns(config, source.source, prompts, rounds * (1 + again))
    elif isinstance(source, Mixed | ByTask):
        for part, share in _shared(config, source):
            yield from _turns(config, part, prompts * share, rounds)
    elif not isinstance(source, DatasetSource):
        if not isinstance(source, TeacherSource | Recorded):
            yield Turn(prompts, n, rounds)
        if isinstance(source, TeacherSource | Recorded | TeacherMixed):
            yield Turn(prompts, n, rounds, source)


def _shared(config: Config, source: Mixed | ByTask) -> Iterator[tuple[Any, float]]:
    """Parts with their shares of the prompts."""
    if isinstance(source, Mixed):
        yield from ((part, source.shares[name] / sum(source.shares.values())) for name, part in source.used.items())
        return
    weights = config.data.weights or dict.fromkeys(config.data.tasks, 1.0)
    yield from ((source.tasks.get(name, source.others), w / sum(weights.values())) for name, w in weights.items() if w)


def beside(config: Config) -> int:
    """Tokens that are written in a step, at most, beside those of its rollouts."""
    room, short = config.sampling.max_tokens, config.sampling.tokens(config.steps - 1)
    return math.ceil(
        sum(t.prompts * t.n * (t.rounds * room if t.asked else (t.rounds - 1) * short) for t in turns(config))
    )
