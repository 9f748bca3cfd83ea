"""Policy-gradient losses on sampled tokens: four ways to weigh a token by `ratio = pi / mu`.

Sources: importance sampling and CISPO as in the Tinker cookbook's loss functions (Thinking Machines, 2025; CISPO from
MiniMax-M1, 2025); PPO's clipped surrogate, Schulman et al., 2017; the truncated ratio, Espeholt et al., 2018 (IMPALA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from opd.objectives.masking import masked_mean
from opd.tensors import Tokens

Kind = Literal["importance_sampling", "ppo", "cispo", "truncated"]


def token_losses(
    logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    kind: Kind = "importance_sampling",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ratio_cap: float = 2.0,
) -> Tensor:
    """Policy-gradient loss of each token, the shape of `logprobs` (nats).

    `importance_sampling` is unbiased. `ppo` has no gradient where the ratio left its clip range in the direction of the
    advantage, `truncated` none above `ratio_cap`; `cispo` bounds a *detached* weight, from above only, so that every
    token keeps its gradient through `log pi`.
    """
    ratio = torch.exp(logprobs - behavior_logprobs)
    match kind:
        case "importance_sampling":
            return -ratio * advantages
        case "ppo":
            clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
            return -torch.minimum(ratio * advantages, clipped * advantages)
        case "cispo":
            return -ratio.detach().clamp(max=1 + clip_high) * advantages * logprobs
        case "truncated":
            return -ratio.clamp(max=ratio_cap) * advantages


def policy_gradient_loss(
    logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    kind: Kind = "importance_sampling",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ratio_cap: float = 2.0,
) -> Tensor:
    """Mean policy-gradient loss over the mask; all inputs [B, T], log-probs in nats, advantages detached."""
    losses = token_losses(logprobs, behavior_logprobs, advantages, kind, clip_low, clip_high, ratio_cap)
    return masked_mean(losses, mask)


@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """Settings of every objective that learns from advantages."""

    kind: Kind = "importance_sampling"
    """How the ratio of the weights that learn to those that sampled enters: as it is, or bounded in one of three."""
    clip_low: Annotated[float, Field(ge=0, le=1)] = 0.2
    """`ppo`: the ratio's lower bound is 1 - clip_low."""
    clip_high: Annotated[float, Field(ge=0)] = 0.2
    """`ppo` and `cispo`: the ratio's upper bound is 1 + clip_high."""
    ratio_cap: Annotated[float, Field(ge=1)] = 2.0
    """`truncated`: the largest ratio that counts."""

    def token_losses(self, tokens: Tokens, advantages: Tensor) -> Tensor:
        """Policy-gradient loss of each token, [N], under advantages [N]."""
        return token_losses(
            tokens.logprobs, tokens.behavior_logprobs, advantages,
            self.kind, self.clip_low, self.clip_high, self.ratio_cap,
        )  # fmt: skip
