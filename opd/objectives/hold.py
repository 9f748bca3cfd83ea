"""A weight that follows a figure of the run: larger while that is above its target, smaller while it is below.

Source: Ziegler et al., "Fine-Tuning Language Models from Human Preferences", 2019 (arXiv 1909.08593), section 2.2, for
the penalty's coefficient of PPO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from opd.needs import Needs

MOST = 0.2
"""Share of the target that a figure is off by, as far as it is looked at."""


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Config of `hold`: after each step `weight <- weight (1 + rate * clip(figure / target - 1, -0.2, 0.2))`.

    Meant for a term that lowers the figure. A step whose figure is no number leaves the weight as it is.
    """

    target: Annotated[float, Field(gt=0)]
    """Nats a token."""
    figure: Literal["kl/reference", "kl/sampled"] = "kl/reference"
    """KL of the student to the reference, or to the teacher, as the step's samples have it."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The paper's K; 0.1: at most 2% a step."""

    @property
    def needs(self) -> Needs:
        """Whose log-probs the figure is made of."""
        reference = self.figure == "kl/reference"
        return Needs(reference=reference, logprobs=not reference)

    def next(self, weight: float, figure: float) -> float:
        """The weight of the next step."""
        if not math.isfinite(figure):
            return weight
        return weight * (1 + self.rate * max(-MOST, min(MOST, figure / self.target - 1)))
