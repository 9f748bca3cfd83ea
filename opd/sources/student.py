"""The student writes: on-policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opd.stream import telling
from opd.types import Prompt, Rollout, Sampling
from opd.writing import Desk, Writer


class ByStudent:
    """A source of which all that is trained is the student's own, with its log mu."""

    policy = True
    origins = frozenset({"student"})


@dataclass(frozen=True)
class StudentSource(ByStudent):
    """Every completion is sampled from the student's newest weights."""

    def start(self, desk: Desk) -> Writer:
        """Use the run's engine."""
        return StudentWriter(desk)


@dataclass(frozen=True)
class StudentWriter:
    """Samples with the run's engine."""

    desk: Desk

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `n` completions of each prompt."""
        if sampling.trial:
            return self.desk.engine.sample(prompts, sampling)
        return telling(self.desk.engine, prompts, sampling, self.desk.finished)
