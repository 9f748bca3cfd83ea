"""No token counts more than so much: one on which the two disagree wholly does not drown the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.reverse_kl import reverse_kl_advantages
from opd.tensors import Completions


@dataclass(frozen=True)
class Cap:
    """Config of `cap`: `w_t = min(1, most / |r_t|)`, `r = log q - log pi` of the sampled token.

    On `reverse_kl` it is that objective's own `clip`; on a divergence it holds back the tokens that the teacher would
    least have written. Chosen here: the token is scaled down and not left out, so that it still learns. Divided by all
    trained tokens, as without it.
    """

    most: Annotated[float, Field(gt=0)] = 5.0
    """Nats."""

    @property
    def needs(self) -> Needs:
        """Log-probs of tokens that the student sampled, by both."""
        return Needs(logprobs=True, policy=True)

    def weigh(self, completions: Completions) -> Tensor:
        """Weights [B, T]."""
        c = completions
        gap = reverse_kl_advantages(c.teacher_logprobs, c.policy_logprobs, c.mask).abs()
        return torch.where(gap > self.most, self.most / gap.clamp(min=self.most), 1.0)
