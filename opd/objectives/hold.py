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

CLIP = 0.2
"""Share of the target that a figure is off by, as far as it is looked at."""


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Config of `hold`: `weight <- min(most, weight (1 + rate * clip(figure / target - 1, -0.2, 0.2)))` once a step.

    Meant for a term that lowers the figure. A step whose figure is no number leaves the weight as it is.
    """

    target: Annotated[float, Field(gt=0)]
    """Nats a token."""
    figure: Literal["kl/reference", "kl/sampled"] = "kl/reference"
    """KL of the student to the reference, or to the teacher, as the step's samples have it."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The paper's K; 0.1: at most 2% a step."""
    most: Annotated[float, Field(gt=0)] = 10.0
    """The weight grows no further: of a figure that no weight brings to its target it would grow without an end, until
    the sum's other terms count for nothing."""

    @property
    def needs(self) -> Needs:
        """Whose log-probs the figure is made of."""
        reference = self.figure == "kl/reference"
        return Needs(reference=reference, logprobs=not reference)

    def next(self, weight: float, figure: float) -> float:
        """The weight of the next step."""
        change = max(-CLIP, min(CLIP, figure / self.target - 1)) if math.isfinite(figure) else 0.0
        return min(self.most, weight * (1 + self.rate * change))
