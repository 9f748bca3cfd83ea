"""A reverse KL truncated to the teacher's k likeliest tokens: a test bed, to see why the tool refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.gkd import kl
from opd.tensors import Completions, Tokens


@dataclass(frozen=True)
class WithoutTail:
    """`sum_{v in top-k} pi_v log(pi_v / q_v)`, differentiated.

    It is no divergence: over pi it is lowest at `pi_v = q_v / e`, where 63% of the mass or more have left the top-k.
    """

    k: Annotated[int, Field(ge=1)] = 5

    @property
    def needs(self) -> Needs:
        """The teacher's top-k."""
        return Needs(top_k=self.k)

    def advantages(self, completions: Completions) -> Tensor:
        """None: the sum is differentiated itself."""
        return torch.zeros_like(completions.behavior_logprobs)

    def loss(self, tokens: Tokens) -> Tensor:
        """The truncated sum at each token, [N]; it may be negative."""
        assert tokens.top_ids is not None
        assert tokens.top_logprobs is not None
        return kl(tokens.logits.log_softmax(-1).gather(-1, tokens.top_ids), tokens.top_logprobs)
