"""Learning from a teacher with another tokenizer, where tokens of both sides spell the same bytes.

Sources: ULD, Boizard et al., "Towards Cross-Tokenizer Distillation", 2024 (arXiv 2402.12030); GOLD, Hugging Face, 2025,
as in TRL's trainer of that name. What differs from the latter: the default here is a policy gradient on the log-prob of
each span. The two divergences compare the models' next-token distributions where a span *starts*, the only place where
both are given the same text and nothing more; TRL merges the distributions of a span's tokens into one. And the
shared tokens' distributions are renormalised before they are compared, without which the divergence can be negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.gkd import jsd
from opd.objectives.log_ratio import LogRatio
from opd.tensors import Completions, Tokens
from opd.text.spans import align_spans

__all__ = ["Gold", "align_spans", "hybrid", "span_advantages", "uld"]

ROWS = 64
"""Positions whose distributions are sorted at once: what a sort needs beside its input stays small."""


def span_advantages(
    teacher_logprobs: Tensor,
    student_logprobs: Tensor,
    spans: Tensor,
    mask: Tensor,
    coef: float = 1.0,
    boundary: bool = False,
) -> Tensor:
    """`coef * (log q(span) - log pi(span))` for each token of the span, detached, [B, T]; 0 where there is no span.

    All inputs are [B, T]; `spans` numbers the spans of each sequence, -1 where there is none; the teacher's log-prob of
    a span is the sum over its tokens, however it is shared out among them. Where spans are single tokens these are the
    advantages of `reverse_kl`. Each token of a span answers for all of it, so that the gradient is that of the
    span's reverse KL, if where spans end is known from their own bytes: what an early token does to the later ones of
    its span is not left out.

    Where a span ends can depend on what comes after it: after `=` a teacher with a token `=8` reads an `=` of its own
    only if no `8` follows, and blames the `=` for it. With `boundary` a token also answers for the span before its own.
    """
    known = mask.bool() & (spans >= 0)
    rewards = (teacher_logprobs - student_logprobs).detach().masked_fill(~known, 0.0)
    places = spans.clamp(min=0)  # of those in no span too: they add 0
    sums = torch.zeros_like(rewards).scatter_add_(1, places, rewards)
    if boundary:
        sums = sums + torch.nn.functional.pad(sums, (1, 0))[:, :-1]
    return (coef * sums.gather(1, places)).masked_fill(~known, 0.0)


def uld(student_probs: Sequence[Tensor] | Tensor, teacher_probs: Sequence[Tensor] | Tensor) -> Tensor:
    """Mean over rows of the L1 distance between two sorted distributions, the shorter one padded with zeros."""
    distances = [sorted_distance(p[None], q[None]) for p, q in zip(student_probs, teacher_probs, strict=True)]
    return torch.cat(distances).mean()


def sorted_distance(student_probs: Tensor, teacher_probs: Tensor) -> Tensor:
    """L1 distance [N] between the sorted rows of [N, V] and [N, W], the shorter one padded with zeros."""
    size = max(student_probs.shape[-1], teacher_probs.shape[-1])
    p, q = (
        torch.nn.functional.pad(x.sort(dim=-1, descending=True).values, (0, size - x.shape[-1]))
        for x in (student_probs, teacher_probs)
    )
    return (p - q).abs().sum(-1)


def hybrid(
    student_logits: Tensor,
    teacher_logits: Tensor,
    shared: tuple[Tensor, Tensor],
    beta: float,
    shared_weight: float = 1.0,
    rest_weight: float = 1.0,
) -> Tensor:
    """Generalised JSD on the shared tokens plus sorted L1 on the others, [N]; never negative.

    Args:
        student_logits: [N, V].
        teacher_logits: [N, W].
        shared: columns of the two that are the same token.
        beta: as in `gkd`; 0 is the forward KL, 1 the reverse one.
        shared_weight: of the divergence between the two distributions over the shared tokens, renormalised, and
            weighed by the teacher's probability of a shared token.
        rest_weight: of the distance between what is left, as it is: it also sees how much of it there is.
    """
    ours, theirs = (columns.to(student_logits.device) for columns in shared)
    log_pi = student_logits[:, ours].log_softmax(-1)
    log_q = teacher_logits[:, theirs].log_softmax(-1)
    q = teacher_logits.softmax(-1)
    rest = sorted_distance(_without(student_logits.softmax(-1), ours), _without(q, theirs))
    # As in the chain rule of the KL over a partition: where the teacher would hardly write a shared token (it has a
    # longer one for this place), what it says of them counts as little.
    share = q[:, theirs].sum(-1)
    return shared_weight * share * jsd(log_pi, log_q, beta) + rest_weight * rest


def _without(probs: Tensor, columns: Tensor) -> Tensor:
    keep = torch.ones(probs.shape[-1], dtype=torch.bool, device=probs.device)
    keep[columns] = False
    return probs[:, keep]


@dataclass(frozen=True, kw_only=True)
class Gold(LogRatio):
    """Config of `gold`, for `teacher=cross`.

    `span` is on-policy: it needs tokens that the student sampled. `uld` and `hybrid` take any tokens; their
    gradient is exact at every position where a span starts, and there is none at the others. ULD compares
    the shapes of the two distributions and not which tokens they are of: it is 0 for any permutation of the teacher.
    """

    method: Literal["span", "uld", "hybrid"] = "span"
    """`span`: the log-prob of each byte span, by policy gradient; `uld`: sorted distributions; `hybrid`: a divergence
    over the shared tokens and ULD on the rest."""
    coef: Annotated[float, Field(gt=0)] = 1.0
    """Scale of the advantages, or of the distance."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """`span`: advantages are cut to [-clip, clip]; None leaves them."""
    boundary: bool = False
    """`span`: each token also answers for the span before its own, whose end it has decided."""
    beta: Annotated[float, Field(ge=0, le=1)] = 1.0
    """`hybrid`: the divergence over the shared tokens; 0 is the forward KL, 1 the reverse one."""
    shared_weight: Annotated[float, Field(ge=0)] = 1.0
    """`hybrid`: of the divergence over the shared tokens."""
    rest_weight: Annotated[float, Field(ge=0)] = 1.0
    """`hybrid`: of the sorted distance between the others."""

    def __post_init__(self) -> None:
        """Refuse a setting that the method does not read."""
        if self.clip is not None and self.method != "span":
            raise ValueError(f"clip={self.clip:g}: method={self.method} has no advantages; allowed is method=span")
        if self.boundary and self.method != "span":
            raise ValueError(f"boundary=true: method={self.method} has no advantages; allowed is method=span")
        if self.student == "sampled" and self.method != "span":
            raise ValueError(f"student=sampled: method={self.method} differentiates the student of now; allowed is now")

    @property
    def needs(self) -> Needs:
        """Spans; their log-probs for a policy gradient, or the teacher's distributions where they start."""
        sampled = self.method == "span"
        return Needs(spans=True, policy=sampled, distribution=not sampled, current=sampled and self.now)

    def advantages(self, completions: Completions) -> Tensor:
        """Of each token, those of its span; none for the two distances."""
        c = completions
        if self.method != "span":
            return torch.zeros_like(c.behavior_logprobs)
        adv = span_advantages(c.teacher_logprobs, self.judged(c), c.spans, c.mask, self.coef, self.boundary)
        return adv if self.clip is None else adv.clamp(-self.clip, self.clip)

    def loss(self, tokens: Tokens) -> Tensor:
        """Loss of each token, [N]; 0 where no span starts, for the two distances."""
        if self.method == "span":
            return self.token_losses(tokens, tokens.advantages)
        assert tokens.span_starts is not None
        losses = 0.0 * tokens.logprobs  # has a graph, though no span may start in this chunk
        for rows in _few(tokens.span_starts):
            losses = losses.index_put((rows,), self.coef * self._distance(tokens, rows))
        return losses

    def _distance(self, tokens: Tokens, rows: Tensor) -> Tensor:
        assert tokens.teacher_logits is not None
        ours, theirs = tokens.logits[rows], tokens.teacher_logits[rows]
        if self.method == "uld":
            return sorted_distance(ours.softmax(-1), theirs.softmax(-1))
        # None: the columns are the same ones.
        same = torch.arange(ours.shape[-1], device=ours.device)
        return hybrid(ours, theirs, tokens.shared or (same, same), self.beta, self.shared_weight, self.rest_weight)


def _few(chosen: Tensor) -> Iterator[Tensor]:
    """Indices of the chosen rows, some at a time."""
    yield from chosen.nonzero().squeeze(-1).split(ROWS)
