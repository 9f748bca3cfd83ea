"""Hand-written stand-ins for parts of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from opd.teachers.local import LocalScorer, LocalTeacher
from opd.types import Need, Rollout, Scored, Scorer, Vocabulary


@dataclass(frozen=True)
class BrokenTeacher(LocalTeacher):
    """A local teacher whose log-probs become NaN after a number of calls."""

    good_calls: int = 4

    def start(self, vocabulary: Vocabulary) -> Scorer:
        return _Broken(super().start(vocabulary), self.good_calls)


class _Broken:
    def __init__(self, scorer: LocalScorer, good_calls: int) -> None:
        self.scorer, self.left = scorer, good_calls

    def score(self, rollouts: Sequence[Rollout], needs: frozenset[Need]) -> list[Scored]:
        self.left -= 1
        scored = self.scorer.score(rollouts, needs)
        if self.left >= 0:
            return scored
        return [replace(s, teacher_logprobs=torch.full_like(s.teacher_logprobs, float("nan"))) for s in scored]

    def __getattr__(self, name: str):
        return getattr(self.scorer, name)


@dataclass(frozen=True)
class SlowTeacher(LocalTeacher):
    """A local teacher that takes its time, so that a signal meets a step."""

    seconds: float = 0.5

    def start(self, vocabulary: Vocabulary) -> Scorer:
        scorer = super().start(vocabulary)
        inner = scorer.score

        def score(rollouts: Sequence[Rollout], needs: frozenset[Need]) -> list[Scored]:
            time.sleep(self.seconds)
            return inner(rollouts, needs)

        scorer.score = score
        return scorer
