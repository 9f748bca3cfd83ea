"""The distribution that `Sampling` describes, and draws from it; the same order of steps as vLLM's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from opd.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor


def log_mu(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Log-probs that tokens are drawn with: temperature, then min_p, top_k and top_p, each on what the last one left.

    Args:
        logits_BV: Float [B, V].
        sampling: At temperature 0 the plain distribution is returned, of which the greatest is then taken.

    Returns:
        Float32 [B, V], rows sum to 1 as probabilities; minus infinity where a token is cut off.
    """
    if sampling.temperature == 0:
        return logits_BV.float().log_softmax(-1)
    logprobs_BV = (logits_BV.float() / sampling.temperature).log_softmax(-1)
    if sampling.min_p > 0:
        floor_B1 = logprobs_BV.amax(-1, keepdim=True) + torch.tensor(sampling.min_p).log()
        logprobs_BV = logprobs_BV.masked_fill(logprobs_BV < floor_B1, -torch.inf)
    if 0 < sampling.top_k < logprobs_BV.shape[-1]:
        least_B1 = logprobs_BV.topk(sampling.top_k).values[:, -1:]
        logprobs_BV = logprobs_BV.masked_fill(logprobs_BV < least_B1, -torch.inf)
    if sampling.top_p < 1:
        logprobs_BV = _nucleus(logprobs_BV.log_softmax(-1), sampling.top_p)
    return logprobs_BV.log_softmax(-1)


def draw(logprobs_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """Draw a token per row by inverting its distribution function at a number in [0, 1).

    A row's token depends on its own number alone, so that a request's draws are the same in any batch.

    Args:
        logprobs_BV: Float [B, V].
        uniforms_B: Float64 [B].

    Returns:
        Int64 [B].
    """
    cumulative_BV = logprobs_BV.double().exp().cumsum(-1)
    # Strictly above: a token of probability 0 adds nothing to the sum and so is never the first one above.
    index_B1 = torch.searchsorted(cumulative_BV, uniforms_B[:, None] * cumulative_BV[:, -1:], right=True)
    return index_B1[:, 0].clamp(max=logprobs_BV.shape[-1] - 1)


def _nucleus(logprobs_BV: Tensor, top_p: float) -> Tensor:
    """Cut off every token that has `top_p` or more probability above it."""
    sorted_BV, order_BV = logprobs_BV.sort(dim=-1, descending=True, stable=True)
    probs_BV = sorted_BV.exp()
    above_BV = probs_BV.cumsum(-1) - probs_BV
    sorted_BV = sorted_BV.masked_fill(above_BV >= top_p, -torch.inf)
    return torch.empty_like(sorted_BV).scatter_(-1, order_BV, sorted_BV)
