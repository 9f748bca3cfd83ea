"""Only a share of the tokens is trained: those that carry the signal, or, as a control, any.

Sources: TIP, 2026 (arXiv 2604.14084), by the student's entropy, and by divergence where it is sure of itself; TA-OPD,
2026 (arXiv 2605.26844).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.reverse_kl import reverse_kl_advantages
from opd.seeds import derive
from opd.tensors import Completions


def share_weights(scores: Tensor, mask: Tensor, share: float) -> Tensor:
    """`n / k` on the `k = ceil(share * n)` highest `scores` of each sequence's n masked tokens, else 0; float32 [B, T].

    Of equal scores the earlier is the higher. The weights of a sequence add up to n: divided by all trained tokens,
    the loss is the mean over the selected ones, in which each sequence counts by its length as it does without it.
    """
    n = mask.sum(1, keepdim=True).double()
    k = (share * n - 1e-9).ceil().clamp(min=1)
    return torch.where(mask & (ranks(scores, mask) < k), n / k, 0.0).float()


def ranks(scores: Tensor, mask: Tensor) -> Tensor:
    """Places [B, T] of the scores in their sequence, from 0 for the highest; those that are masked come last."""
    order = scores.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1]).expand(scores.shape)
    return torch.zeros_like(order).scatter_(1, order, places)


def either(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Scores [B, T], the higher the better the better of a token's two places is; of equals, the better the other."""
    a, b = ranks(first, mask), ranks(second, mask)
    return -(torch.minimum(a, b) * first.shape[1] + torch.maximum(a, b)).double()


def random_scores(seeds: Tensor, mask: Tensor, seed: int) -> Tensor:
    """Uniform in [0, 1), float32 [B, T]: of a sequence those of its own seed."""
    scores = torch.zeros(mask.shape)
    for row, own in enumerate(seeds.tolist()):
        n = int(mask[row].sum())
        scores[row, mask[row]] = torch.rand(n, generator=torch.Generator().manual_seed(derive(seed, "share", own)))
    return scores


@dataclass(frozen=True)
class Share:
    """Config of `share`: `n / k` for the k of a sequence's n trained tokens that score highest, 0 for the others.

    Chosen here: the share is of each sequence, which no packing, micro-batch, rank or step divides, and is rounded up,
    so that each has a token that is trained. A loss is divided by the tokens that are trained, so a selected one
    counts n / k: the size of a step does not fall with the share. With `by=random` the expected gradient is then that
    of all tokens. What is left out costs what it did: it is read, and counts nothing.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the trained tokens of each sequence; 1: all of them."""
    by: Literal["entropy", "divergence", "both", "random"] = "entropy"
    """`entropy`: of the student that is trained; `divergence`: `|log q - log pi|` of the sampled token, as the student
    that sampled it had it; `both`: the better of the token's places in the two orders, so that half are of either;
    `random`: drawn anew for each sample, each time that it is trained on, the control."""
    seed: int = 0
    """`random`: another seed, another draw."""

    @property
    def needs(self) -> Needs:
        """What it is chosen by."""
        entropy, divergence = self.by in ("entropy", "both"), self.by in ("divergence", "both")
        return Needs(logprobs=divergence, policy=divergence, current=entropy, entropy=entropy)

    def weigh(self, completions: Completions) -> Tensor:
        """Weights [B, T]."""
        return share_weights(self._scores(completions), completions.mask, self.share)

    def _scores(self, c: Completions) -> Tensor:
        if self.by == "random":
            return random_scores(c.seeds, c.mask, self.seed)
        gap = reverse_kl_advantages(c.teacher_logprobs, c.policy_logprobs, c.mask).abs()
        if self.by == "divergence":
            return gap
        assert c.current_entropy is not None
        return c.current_entropy if self.by == "entropy" else either(c.current_entropy, gap, c.mask)
