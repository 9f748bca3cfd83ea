"""Reverse KL by policy gradient: the advantage of a token is how much likelier the teacher found it.

Source: "On-Policy Distillation", Thinking Machines Lab, 2025, and the Tinker cookbook's recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from opd.objectives.masking import discounted_sum
from opd.objectives.policy_gradient import Kind, token_losses
from opd.types import Completions, Need, Tokens


def reverse_kl_advantages(
    teacher_logprobs: Tensor, student_logprobs: Tensor, mask: Tensor, coef: float = 1.0, discount: float = 0.0
) -> Tensor:
    """`A_t = coef * sum_{k>=t} discount^(k-t) (log q_k - log pi_k)`, detached, [B, T], 0 where masked.

    With `discount=0` it is the estimator of the per-token ("greedy") reverse KL, biased for the sequence-level one by
    leaving out what a token does to the later ones; `discount=1` is the unbiased one of the sequence, noisier by far.
    """
    mask = mask.bool()
    rewards = (teacher_logprobs - student_logprobs).detach().masked_fill(~mask, 0.0)
    return (coef * discounted_sum(rewards, discount)).masked_fill(~mask, 0.0)


@dataclass(frozen=True)
class ReverseKL:
    """Config of `reverse_kl`, the default objective."""

    coef: Annotated[float, Field(gt=0)] = 1.0
    """Scale of the advantages."""
    discount: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far a token answers for the disagreement that follows it; 0: for its own only."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Advantages are cut to [-clip, clip] (after discounting); None leaves them."""
    kind: Kind = "importance_sampling"
    clip_low: Annotated[float, Field(ge=0, le=1)] = 0.2
    """`ppo`: the ratio's lower bound is 1 - clip_low."""
    clip_high: Annotated[float, Field(ge=0)] = 0.2
    """`ppo` and `cispo`: the ratio's upper bound is 1 + clip_high."""
    ratio_cap: Annotated[float, Field(ge=1)] = 2.0
    """`truncated`: the largest ratio that counts."""

    @property
    def needs(self) -> frozenset[Need]:
        """Only the teacher's log-probs of the sampled tokens."""
        return frozenset({"logprobs"})

    def advantages(self, completions: Completions) -> Tensor:
        """Advantages against the policy that sampled; under the ratio's weight that is the policy they judge."""
        c = completions
        adv = reverse_kl_advantages(c.teacher_logprobs, c.behavior_logprobs, c.mask, self.coef, self.discount)
        return adv if self.clip is None else adv.clamp(-self.clip, self.clip)

    def loss(self, tokens: Tokens) -> Tensor:
        """Policy-gradient loss of each token, [N]."""
        return token_losses(
            tokens.logprobs, tokens.behavior_logprobs, tokens.advantages,
            self.kind, self.clip_low, self.clip_high, self.ratio_cap,
        )  # fmt: skip
