"""Supervised fine-tuning, and sequence-level distillation where the teacher wrote the completions.

Source for the latter: Kim and Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016 (arXiv 1606.07947).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opd.needs import Needs
from opd.tensors import Completions, Tokens


@dataclass(frozen=True)
class SFT:
    """Config of `sft`: `-log pi(y)`. On tokens that the teacher sampled its mean gradient is that of KL(q||pi)."""

    @property
    def needs(self) -> Needs:
        """Nothing but the tokens."""
        return Needs()

    def advantages(self, completions: Completions) -> Tensor:
        """None: every token is right."""
        return torch.zeros_like(completions.behavior_logprobs)

    def loss(self, tokens: Tokens) -> Tensor:
        """Cross-entropy of each token, [N]."""
        return -tokens.logprobs
