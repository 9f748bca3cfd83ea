"""Short and growing rollouts: of how many tokens the completions of a step are written, scored and trained.

    fixed      H(s) = first
    linear     H(s) = round(first + (max_tokens - first) * min(1, s / steps))
    doubling   H(s) = min(max_tokens, first * 2**floor(d * min(1, s / steps))),  d = ceil(log2(max_tokens / first))

for step s, counted from 0. `first = max_tokens` is the plain method.

Sources and claims. ESR, "Less is More: Early Stopping Rollout for On-Policy Distillation", 2026 (arXiv 2605.27028):
only the first N response tokens (100) are written, and students end above those of full rollouts on math, code and
function calls, since a teacher that reads hundreds of a student's tokens goes on with them rather than correcting them.
Zhang et al., "Fast and Effective On-policy Distillation from Reasoning Prefixes", 2026 (arXiv 2602.15260): prefixes,
fixed or growing linearly, equal full rollouts at a 2nd to a 47th of the FLOPs. Zhang et al., "Are Full Rollouts
Necessary for On-Policy Distillation?", 2026 (arXiv 2605.31490): TOPD, a tenth of the horizon for good, equals full
rollouts; POPD, a growing one, learns up to 3 times as fast.

Left open, and chosen here: how POPD grows is not known from its abstract, so that there are two ways, a line and
doublings at equal fractions of `steps`, the last one at its end. A completion that ends before the horizon has its EOS
trained, one that is cut has none. What is cut so is no fault of the student's: it is counted apart, has no reward, and
evaluations are always at full length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Growth = Literal["linear", "doubling"]


@dataclass(frozen=True)
class Horizon:
    """How many tokens of a completion are written in training, before `sampling.max_tokens` is reached."""

    first: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Tokens in the first step; null: always `sampling.max_tokens`."""
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """After so many steps it has grown to `sampling.max_tokens`; null: it stays as it is."""
    growth: Growth = "linear"
    """By as much in every step, or `doubling` at equal distances."""

    def __post_init__(self) -> None:
        """Refuse a growth from nowhere."""
        if self.first is None and self.steps is not None:
            raise ValueError(f"steps={self.steps}: also say from how many tokens, such as sampling.horizon.first=100")

    def at(self, step: int, longest: int) -> int:
        """Tokens of step `step`, counted from 0; `longest` is `sampling.max_tokens`."""
        if self.first is None:
            return longest
        if self.steps is None:
            return self.first
        if self.growth == "linear":
            done = min(step, self.steps)
            return self.first + round((longest - self.first) * done / self.steps)
        doublings = math.ceil(math.log2(longest / self.first)) * min(step, self.steps) // self.steps
        return min(longest, self.first << doublings)

    def said(self, longest: int) -> str:
        """For people; empty where completions are written to their end."""
        if self.first is None:
            return ""
        if self.steps is None:
            return f"{self.first} tokens of at most {longest}"
        return f"{self.first} tokens at first, {longest} after {self.steps} steps, {self.growth}"
