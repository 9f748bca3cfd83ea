"""No teacher: for objectives that learn from the tokens themselves, or from rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opd.needs import Needs
from opd.protocols import Pupil
from opd.types import Judgement, Prompt, Rollout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NoTeacher:
    """It has no settings."""

    @property
    def provides(self) -> Needs:
        """Nothing."""
        return Needs()

    def checkpoint(self) -> None:
        """None: there is no model."""

    def start(self, pupil: Pupil) -> SilentScorer:
        """Load nothing."""
        return SilentScorer()


@dataclass(frozen=True)
class SilentScorer:
    """Has nothing to say on any token."""

    shared: tuple[Tensor, Tensor] | None = None

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """NaN for every token."""
        import torch

        return [Judgement(torch.full((len(r.tokens),), float("nan"))) for r in rollouts]

    def logits(self, state: Tensor) -> Tensor:
        """Never called: it provides no distribution."""
        raise AssertionError("logits() of a teacher that provides no distribution")

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The student's ids."""
        return [p.tokens for p in prompts]

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """None."""
        return []

    def close(self) -> None:
        """Nothing to free."""
