"""Means over a mask and sums towards the end of a sequence."""

from __future__ import annotations

from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` [B, T] where `mask` holds; 0, with a graph, where it holds nowhere."""
    return values.masked_fill(~mask.bool(), 0.0).sum() / mask.sum().clamp(min=1)


def discounted_sum(values: Tensor, discount: float) -> Tensor:
    """`sum_{k>=t} discount^(k-t) values_k` along the last axis of [B, T]; masked values must already be 0."""
    if discount == 0.0:
        return values
    out = values.clone()
    for t in range(values.shape[1] - 2, -1, -1):
        out[:, t] += discount * out[:, t + 1]
    return out
