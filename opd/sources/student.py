"""The student writes: on-policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opd.stream import in_order, stream
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
        done: dict[int, Rollout] = {}
        for place, rollout in stream(self.desk.engine, prompts, sampling):
            if not sampling.trial:
                self.desk.finished(rollout)
            done[place] = rollout
        return in_order(done.items())
