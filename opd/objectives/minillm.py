"""MiniLLM: the exact reverse KL of the single step, and a length-normalised long-term advantage.

Source: Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models", ICLR 2024 (arXiv 2306.08543).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.gkd import kl
from opd.objectives.log_ratio import LogRatio
from opd.objectives.masking import discounted_sum
from opd.tensors import Completions, Tokens


def minillm_advantages(teacher_logprobs: Tensor, student_logprobs: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """`A_t = sum_{i>=t} gamma^(i-t) r_i / sum_{i>=t} gamma^(i-t)`, `r = log q - log pi`; detached, [B, T].

    The token's own `r_t` is in it. Beside the exact single-step term, which stands for `r_t`, the sums begin at t+1.
    """
    return returns(teacher_logprobs, student_logprobs, mask, gamma)


def returns(
    teacher_logprobs: Tensor,
    student_logprobs: Tensor,
    mask: Tensor,
    gamma: float,
    *,
    own: bool = True,
    normalised: bool = True,
) -> Tensor:
    """Discounted sum (or weighted mean, if `normalised`) of the `r_i` with i >= t, or i > t without `own`; [B, T]."""
    mask = mask.bool()
    rewards = (teacher_logprobs - student_logprobs).detach().masked_fill(~mask, 0.0)
    total, weight = discounted_sum(rewards, gamma), discounted_sum(mask.to(rewards.dtype), gamma)
    if not own:
        total, weight = (gamma * torch.nn.functional.pad(x, (0, 1))[:, 1:] for x in (total, weight))
    return torch.where(mask, total / weight.clamp(min=1e-30) if normalised else total, 0.0)


@dataclass(frozen=True, kw_only=True)
class MiniLLM(LogRatio):
    """Config of `minillm`: the gradient of the sequence's reverse KL, its two parts each as they are best estimated.

    What a token does to the disagreement at its own position is exact (`single_step`); what it does to that of the
    later ones is a policy gradient (`long_term`). With both, `gamma=1` and `length_normalised=false` the expected
    gradient is that of the sequence's KL, whose sums make long completions dear and the gradient noisy; dividing by the
    length is biased for it, and is what the paper does. Single step alone is `gkd` with beta=1; long term alone, with
    `gamma=0`, is `reverse_kl`.

    Under teacher-mixed sampling the long term is weighted by `pi / mu` of the token. The paper weighs the exact term
    with it too, where it is 1 on average and would only add noise; here it is left out.
    """

    single_step: bool = True
    """Differentiate `KL(pi||q)` itself at every position; needs the teacher's whole distribution."""
    long_term: bool = True
    """Learn from later tokens; from the own one too, where no exact term does that."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Discount of later tokens."""
    length_normalised: bool = True
    """Advantages are discounted means over the tokens that follow, and not sums."""

    def __post_init__(self) -> None:
        """Refuse an objective that learns nothing."""
        if not (self.single_step or self.long_term):
            raise ValueError(
                "long_term=false: nothing is learned with single_step=false; allowed is one of them or both"
            )
        if self.student == "sampled" and not self.long_term:
            raise ValueError("student=sampled: the single step differentiates the student of now; allowed is now")

    @property
    def needs(self) -> Needs:
        """The whole distribution for the exact term, log-probs of the student's own tokens for the long one."""
        return Needs(
            logprobs=self.long_term, policy=self.long_term, distribution=self.single_step,
            current=self.long_term and self.now,
        )  # fmt: skip

    def advantages(self, completions: Completions) -> Tensor:
        """The paper's `R_{t+1}` beside the exact term, else `R_t`; normalised by the number of tokens summed over."""
        c = completions
        if not self.long_term:
            return torch.zeros_like(c.behavior_logprobs)
        return returns(
            c.teacher_logprobs, self.judged(c), c.mask, self.gamma,
            own=not self.single_step, normalised=self.length_normalised,
        )  # fmt: skip

    def loss(self, tokens: Tokens) -> Tensor:
        """Loss of each token, [N]."""
        if not self.single_step:
            return self.token_losses(tokens, tokens.advantages)
        assert tokens.teacher_logits is not None
        exact = kl(tokens.logits.log_softmax(-1), tokens.teacher_logits.log_softmax(-1))
        return exact + self.token_losses(tokens, tokens.advantages) if self.long_term else exact
