"""Forward KL where the teacher is unsure, beside whatever else is learned: many next tokens are right there.

Source: Jin et al., "Entropy-Aware On-Policy Distillation of Language Models", 2026 (arXiv 2603.07079), whose reverse
KL is a term of its own here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.objectives.gkd import Divergence, kl
from opd.tensors import Tokens


@dataclass(frozen=True)
class Unsure(Divergence):
    """Config of the forward term of `entropy_aware`: `1[H(q) > threshold] * KL(q||pi)` at every position.

    The whole method is this beside `reverse_kl`: `KL(pi||q) + 1[H(q) > threshold] * weight * KL(q||pi)`. Chosen here:
    the threshold, that the forward KL is exact over the vocabulary, and that it is whole above the threshold. Divided
    by all trained tokens, the sure ones too.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.5
    """Nats of the teacher's entropy above which it counts as unsure; 0: everywhere."""

    def loss(self, tokens: Tokens) -> Tensor:
        """Divergence at each token, [N]; 0 where the teacher is sure."""
        assert tokens.teacher_logits is not None
        log_q = tokens.teacher_logits.log_softmax(-1)
        entropy = -kl(log_q, log_q.new_zeros(()))
        return torch.where(entropy > self.threshold, kl(log_q, tokens.logits.log_softmax(-1)), 0.0)
