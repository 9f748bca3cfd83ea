"""Divergences from only k entries of a distribution, without pushing the student's mass off the support.

A truncated reverse KL that forgets the tail is minimised by moving mass *into* the tail, where nothing is counted; so
the tail is always part of it: as one bucket, or sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd.objectives.gkd import jsd, kl
from opd.objectives.masking import masked_mean

TINY = 1e-30
"""Smallest tail mass: below it a bucket's log is that of rounding."""


def with_tail(log_probs: Tensor, index: Tensor) -> Tensor:
    """Log-probs [..., k + 1] of the entries `index` [..., k] of [..., V], and of all others together."""
    chosen = log_probs.gather(-1, index)
    rest = torch.ones_like(log_probs, dtype=torch.bool).scatter(-1, index, False)
    tail = log_probs.masked_fill(~rest, -torch.inf).logsumexp(-1, keepdim=True)
    # Nothing is left beside all V entries: an empty bucket must not turn the gradient into NaN.
    empty = index.shape[-1] >= log_probs.shape[-1]
    return chosen if empty else torch.cat([chosen, tail.clamp(min=float(torch.tensor(TINY).log()))], dim=-1)


def top_k_teacher(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, k: int, beta: float) -> Tensor:
    """Mean JSD over the mask [B, T] between the teacher's top-k and one tail bucket of both; logits [B, T, V]."""
    log_pi, log_q = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    index = log_q.topk(k, dim=-1).indices
    return masked_mean(jsd(with_tail(log_pi, index), with_tail(log_q, index), beta), mask)


def top_k_student(student_logits: Tensor, teacher_logits: Tensor, tokens: Tensor, mask: Tensor, k: int) -> Tensor:
    """Unbiased estimate [B, T] of KL(pi||q) in nats: the student's top-k exactly, the tail by the sampled token.

    `sum_{v in top-k} pi(v) log(pi(v)/q(v)) + 1[y not in top-k] log(pi(y)/q(y))`, for `y` sampled from `pi`.
    """
    log_pi, log_q = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    index = log_pi.topk(k, dim=-1).indices
    head = kl(log_pi.gather(-1, index), log_q.gather(-1, index))
    sampled = (log_pi - log_q).gather(-1, tokens[..., None]).squeeze(-1)
    outside = (index != tokens[..., None]).all(-1)
    return (head + torch.where(outside, sampled, 0.0)).masked_fill(~mask.bool(), 0.0)
