"""Estimates of KL(pi||q) from one sampled token, and what becomes of them when they are used as losses.

A KL estimator's mean says nothing of its gradient: differentiating it through `log pi(y)` forgets that `y` was drawn
from pi. As *losses* the three pull in three directions; each says below in which. All take log-probs of sampled
tokens, of any shape, `y ~ pi`, and give nats in that shape.

Source: Schulman, "Approximating KL Divergence", 2020; the gradients follow by summing over the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """`log pi - log q`. As an estimate unbiased, of high variance, and often negative.

    As a loss: its gradient is zero on average, `sum_y pi grad log pi = 0`; it learns nothing. As a *reward* (detached,
    times the score) it has the reverse KL's gradient: that is the objective `reverse_kl`.
    """
    return logprobs - teacher_logprobs


def k2(logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """`(log pi - log q)^2 / 2`. As an estimate biased (little where they are near), of low variance, never negative.

    As a loss: its mean gradient is exactly that of the reverse KL, KL(pi||q).
    """
    return (logprobs - teacher_logprobs).square() / 2


def k3(logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """`q/pi - 1 - log(q/pi)`. As an estimate unbiased, mostly of low variance, never negative.

    Its variance is infinite or huge where pi misses what q does often. As a loss: its mean gradient is that of the
    *forward* KL, KL(q||pi), and not of the KL that it estimates.
    """
    gap = teacher_logprobs - logprobs
    return torch.expm1(gap) - gap
