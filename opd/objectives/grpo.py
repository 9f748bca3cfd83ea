"""GRPO: a verifiable reward, compared with those of the other samples of its prompt.

Sources: Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300); without the standard deviation and the length: Liu et
al., "Understanding R1-Zero-Like Training", 2025 (Dr. GRPO, arXiv 2503.20783); the token mean: Yu et al., "DAPO", 2025
(arXiv 2503.14476).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.policy_gradient import PolicyGradient
from opd.tensors import Completions, Tokens

EPSILON = 1e-6
"""Added to a group's standard deviation."""


def group_advantages(rewards: Tensor, groups: Tensor, std: bool = True) -> Tensor:
    """`(R_i - mean) / (std + 1e-6)` within each group of [B]; float32 [B]; exactly 0 where all of a group are alike.

    The mean holds the sample itself, which scales the expected gradient of a group of G by (G - 1) / G, and the
    standard deviation is the population's. With `std=False` the difference is left as it is.
    """
    together = (groups[:, None] == groups[None]).double()
    size = together.sum(1)
    rewards = rewards.double()
    # The mean of differences, not the difference from a mean: equal rewards give zero, whatever is rounded.
    centred = (together * (rewards[:, None] - rewards[None])).sum(1) / size
    if std:
        centred = centred / ((together @ centred.square() / size).sqrt() + EPSILON)
    return centred.float()


@dataclass(frozen=True, kw_only=True)
class GRPO(PolicyGradient):
    """Config of `grpo`. Every token of a completion has the completion's advantage."""

    std: bool = True
    """Divide by the group's standard deviation: groups that nearly always fail or succeed then count as much as
    others, and the gradient is no longer that of the mean reward."""
    length: Literal["token", "sequence", "constant"] = "token"
    """What a completion weighs. `token`: every token of the step the same (DAPO); `sequence`: every completion the
    same, so that tokens of long ones count less (the original); `constant`: its number of tokens over `max_tokens`
    (Dr. GRPO), which differs from `token` only in that a step of short completions is a small step."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """The constant of `length: constant`: the same at every step, so that no step's own length enters."""

    def __post_init__(self) -> None:
        """The constant must be known where it is used."""
        if self.length == "constant" and self.max_tokens is None:
            raise ValueError("max_tokens=null: length=constant divides by it; allowed is ${sampling.max_tokens}")

    @property
    def needs(self) -> Needs:
        """A verifier, several samples of a prompt, and that the student wrote them."""
        return Needs(rewards=True, groups=True, policy=True)

    def advantages(self, completions: Completions) -> Tensor:
        """The completion's advantage on each of its tokens, times what its length makes it weigh."""
        c = completions
        return (group_advantages(c.rewards, c.groups, self.std) * self.weights(c))[:, None] * c.mask

    def weights(self, completions: Completions) -> Tensor:
        """What a token of each completion weighs, [B], under a loss that is divided by its optimizer step's tokens, N.

        Tokens and completions are counted of the whole step, whoever wrote them: the three are one where all
        completions are as long as the constant, also in a sum with what is learned from another origin's.
        """
        c, lengths = completions, completions.mask.sum(1).float()
        tokens = lengths.sum() if c.step_tokens is None else c.step_tokens.float()
        several = (lengths > 0).sum() if c.step_completions is None else c.step_completions
        match self.length:
            case "token":
                return torch.ones_like(lengths)
            case "sequence":
                return tokens / (several.clamp(min=1) * lengths.clamp(min=1))
            case "constant":
                assert self.max_tokens is not None
                return (tokens / (several.clamp(min=1) * self.max_tokens)).expand_as(lengths)

    def loss(self, tokens: Tokens) -> Tensor:
        """Policy-gradient loss of each token, [N]."""
        return self.token_losses(tokens, tokens.advantages)
