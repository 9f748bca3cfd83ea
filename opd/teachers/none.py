"""No teacher: for objectives that learn from the tokens themselves, or from rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opd.needs import Needs, Provides
from opd.teaching import Pupil, Scorer
from opd.types import Judgement, Reads, Rollout


@dataclass(frozen=True)
class NoTeacher:
    """It has no settings."""

    @property
    def provides(self) -> Provides:
        """Nothing."""
        return Provides()

    def checkpoint(self) -> None:
        """None: there is no model."""

    def start(self, pupil: Pupil) -> SilentScorer:
        """Load nothing."""
        return SilentScorer()


@dataclass(frozen=True)
class SilentScorer(Scorer):
    """Has nothing to say on any token."""

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """NaN for every token."""
        import torch

        return [Judgement(torch.full((len(r.tokens),), float("nan"))) for r in rollouts]

    def reads(self, rollouts: Sequence[Rollout]) -> list[Reads]:
        """None: there is no model."""
        return []
