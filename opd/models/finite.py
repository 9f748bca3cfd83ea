"""Are all numbers of some tensors finite? One sum of each tells, which costs a reading of them and no memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)
"""Packed weights are of classes of their own, and hold no numbers to be summed."""


@torch.no_grad()
def not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Say of the first tensor that holds NaN or infinities which one it is and how many; None where all are finite.

    All sums are computed before any is looked at: a GPU is waited for once.
    """
    known = [(name, t) for name, t in named if type(t) in PLAIN and t.is_floating_point() and not t.is_meta]
    sums = [_wide(t).sum().float() for _, t in known]
    total = sum(one.to("cpu", non_blocking=True) for one in _by_device(sums))
    if not known or bool(torch.as_tensor(total).isfinite()):
        return None
    for name, tensor in known:  # a sum of finite numbers may be too large, too
        if lost := int(tensor.numel() - _wide(tensor).isfinite().sum()):
            which = "NaN" if bool(_wide(tensor).isnan().any()) else "infinite"
            return f"{name} ({lost} of {tensor.numel()} numbers, {which})"
    return None


def _wide(tensor: Tensor) -> Tensor:
    """Numbers of 8 bits in 16, as which they can be summed."""
    return tensor.to(torch.bfloat16) if tensor.element_size() == 1 else tensor


def _by_device(sums: Iterable[Tensor]) -> list[Tensor]:
    """One sum for each device."""
    parts: dict[torch.device, list[Tensor]] = {}
    for one in sums:
        parts.setdefault(one.device, []).append(one)
    return [torch.stack(some).sum() for some in parts.values()]
