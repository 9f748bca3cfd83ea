"""MiniLLM: the exact reverse KL of the single step, and a length-normalised long-term advantage.

Source: Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models", ICLR 2024 (arXiv 2306.08543).
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd.objectives.masking import discounted_sum


def minillm_advantages(teacher_logprobs: Tensor, student_logprobs: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """`A_t = sum_{i>=t} gamma^(i-t) r_i / sum_{i>=t} gamma^(i-t)`, `r = log q - log pi`; detached, [B, T]."""
    mask = mask.bool()
    rewards = (teacher_logprobs - student_logprobs).detach().masked_fill(~mask, 0.0)
    weights = discounted_sum(mask.to(rewards.dtype), gamma)
    return torch.where(mask, discounted_sum(rewards, gamma) / weights.clamp(min=1e-30), 0.0)
