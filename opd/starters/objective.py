"""An objective: what is learned from a token that the student wrote and the teacher has judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.tensors import Completions, Tokens


@dataclass(frozen=True)
class Starter:
    """Reverse KL by policy gradient, with advantages that are cut off at a limit."""

    limit: Annotated[float, Field(gt=0)] = 5.0
    """Nats: a larger advantage counts as this one, so that no single token outweighs the rest."""

    @property
    def needs(self) -> Needs:
        """What teacher, source and task must give; a mismatch is refused before any weight is read."""
        return Needs(logprobs=True, policy=True)

    def advantages(self, completions: Completions) -> Tensor:
        """How much likelier the teacher finds each token of a step's completions, float32 [B, T]; 0 where masked."""
        ratio = completions.teacher_logprobs - completions.behavior_logprobs
        return ratio.clamp(-self.limit, self.limit).masked_fill(~completions.mask, 0.0).detach()

    def loss(self, tokens: Tokens) -> Tensor:
        """Of some trained tokens, [N], with a graph; the learner sums all and divides by their number in the step."""
        ratio = (tokens.logprobs - tokens.behavior_logprobs).exp()
        advantages: Tensor = tokens.advantages
        return -ratio * advantages
