"""A control: every token is as bad as any other, and no teacher is listened to.

Source: the control experiment of OPSA, 2026 (arXiv 2608.31046).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from opd.needs import Needs
from opd.objectives.policy_gradient import PolicyGradient
from opd.tensors import Completions, Tokens


@dataclass(frozen=True, kw_only=True)
class Constant(PolicyGradient):
    """Config of `constant`: `A_t = advantage` of every token that the student sampled.

    On fresh samples its expected gradient is zero: `sum_y pi grad log pi = 0`. What it moves, noise and an optimizer
    that scales each entry by its size move; a method has learned from its teacher what it learns beyond this.
    """

    advantage: float = -1.0
    """The constant; below zero all that was sampled is made less likely."""

    @property
    def needs(self) -> Needs:
        """Tokens that the student wrote."""
        return Needs(policy=True)

    def advantages(self, completions: Completions) -> Tensor:
        """The constant on every trained token."""
        return self.advantage * completions.mask.float()

    def loss(self, tokens: Tokens) -> Tensor:
        """Policy-gradient loss of each token, [N]."""
        return self.token_losses(tokens, tokens.advantages)
