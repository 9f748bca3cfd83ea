"""A control: what the teacher says of a completion, but of its tokens in any order.

Source: the control experiment of OPSA, 2026 (arXiv 2608.31046).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.policy_gradient import PolicyGradient
from opd.objectives.reverse_kl import reverse_kl_advantages
from opd.seeds import derive
from opd.tensors import Completions, Tokens


def shuffle(values: Tensor, mask: Tensor, seeds: Tensor, seed: int = 0) -> Tensor:
    """The values [B, T] of each sequence's masked tokens among themselves in an order of its own seed [B]."""
    out = torch.zeros_like(values)
    for row, own in enumerate(seeds.tolist()):
        held = values[row, mask[row]]
        generator = torch.Generator().manual_seed(derive(seed, "shuffle", own))
        out[row, mask[row]] = held[torch.randperm(len(held), generator=generator)]
    return out


@dataclass(frozen=True, kw_only=True)
class Shuffled(PolicyGradient):
    """Config of `shuffled`: `A_t = coef * (log q - log pi)` of another token of the same completion.

    Chosen here: the order is drawn within each completion, and anew for each sample. Its tokens have the advantages
    that `reverse_kl` gives them, the same in sum, sign and size, and none of them its own but by chance: what this
    learns, a teacher need not be right about single tokens for.
    """

    coef: Annotated[float, Field(gt=0)] = 1.0
    """Scale of the advantages."""
    seed: int = 0
    """Another seed, another order."""

    @property
    def needs(self) -> Needs:
        """Log-probs of the sampled tokens."""
        return Needs(logprobs=True, policy=True)

    def advantages(self, completions: Completions) -> Tensor:
        """Those of `reverse_kl`, in another order."""
        c = completions
        own = reverse_kl_advantages(c.teacher_logprobs, c.policy_logprobs, c.mask, self.coef)
        return shuffle(own, c.mask, c.seeds, self.seed)

    def loss(self, tokens: Tokens) -> Tensor:
        """Policy-gradient loss of each token, [N]."""
        return self.token_losses(tokens, tokens.advantages)
