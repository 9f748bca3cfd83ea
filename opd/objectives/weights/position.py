"""Early tokens count more: what they decide is what all later ones are given.

Source: IW-OPD, 2026 (arXiv 2606.22600).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.reverse_kl import reverse_kl_advantages
from opd.tensors import Completions


def position_weights(advantages: Tensor, g: float) -> Tensor:
    """`w_t = 1 + g (1 - sum_{s<t} |A_s| / sum_s |A_s|)`, float32 [B, T], of `A` [B, T] that is 0 where masked.

    From 1 + g at the first token down to 1 after the last that has an advantage; 1 where all advantages are 0.
    """
    size = advantages.detach().abs().double()
    total = size.sum(1, keepdim=True)
    left = total - (size.cumsum(1) - size)
    return (1 + g * torch.where(total > 0, left / total.clamp(min=1e-300), 0.0)).float()


@dataclass(frozen=True)
class Position:
    """Config of `position`: `w_t = 1 + g (1 - sum_{s<t} |A_s| / sum_s |A_s|)`.

    Chosen here: `A` is `log q - log pi` of the sampled token, whatever the objective that is weighted; the weights are
    left as they are, between 1 and 1 + g, so that the loss, still divided by all trained tokens, grows with them.
    """

    g: Annotated[float, Field(ge=0)] = 1.0
    """How much more the first token counts than the last; 0: all the same."""

    @property
    def needs(self) -> Needs:
        """Log-probs of tokens that the student sampled, by both."""
        return Needs(logprobs=True, policy=True)

    def weigh(self, completions: Completions) -> Tensor:
        """Weights [B, T]."""
        c = completions
        return position_weights(reverse_kl_advantages(c.teacher_logprobs, c.policy_logprobs, c.mask), self.g)
