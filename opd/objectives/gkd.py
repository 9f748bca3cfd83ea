"""Generalised knowledge distillation: a Jensen-Shannon family between the two KLs, over the whole vocabulary.

Source: Agarwal et al., "On-Policy Distillation of Language Models", ICLR 2024 (arXiv 2306.13649).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.masking import masked_mean
from opd.tensors import Completions, Tokens


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`KL(p || q)` over the last axis, from log-probs; 0 where p is 0."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)


def jsd(log_pi: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """`beta*KL(q||M) + (1-beta)*KL(pi||M)` over the last axis, `M = beta*q + (1-beta)*pi`; nats.

    The ends are defined as what the family tends to after division by beta(1-beta): beta=0 is the forward KL(q||pi),
    beta=1 the reverse KL(pi||q).
    """
    if beta == 0.0:
        return kl(log_q, log_pi)
    if beta == 1.0:
        return kl(log_pi, log_q)
    log_m = torch.logaddexp(log_q + math.log(beta), log_pi + math.log1p(-beta))
    return beta * kl(log_q, log_m) + (1 - beta) * kl(log_pi, log_m)


def generalized_jsd(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, beta: float, temperature: float = 1.0
) -> Tensor:
    """Mean over the mask [B, T] of the generalised JSD of two logits [B, T, V], both divided by `temperature`."""
    log_pi = (student_logits / temperature).log_softmax(-1)
    log_q = (teacher_logits / temperature).log_softmax(-1)
    return masked_mean(jsd(log_pi, log_q, beta), mask)


class Divergence:
    """What is differentiated itself, over the whole vocabulary."""

    @property
    def needs(self) -> Needs:
        """The teacher's whole distribution."""
        return Needs(distribution=True)

    def advantages(self, completions: Completions) -> Tensor:
        """None."""
        return torch.zeros_like(completions.behavior_logprobs)


@dataclass(frozen=True)
class GKD(Divergence):
    """Config of `gkd`: exact gradient of the divergence at every sampled position, none through the sampling."""

    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    """0 is the forward KL (covers the teacher's modes), 1 the reverse KL (seeks one), 0.5 the JSD."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Both distributions are taken at this temperature, beside the one of sampling."""

    def loss(self, tokens: Tokens) -> Tensor:
        """Divergence at each token, [N]."""
        assert tokens.teacher_logits is not None
        log_pi = (tokens.logits / self.temperature).log_softmax(-1)
        return jsd(log_pi, (tokens.teacher_logits / self.temperature).log_softmax(-1), self.beta)
