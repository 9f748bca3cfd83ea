"""Divergences from only k entries of a distribution, without pushing the student's mass off the support.

A truncated reverse KL that forgets the tail is minimised by moving mass *into* the tail, where nothing is counted; so
the tail is always part of it: as one bucket, or sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.gkd import jsd, kl
from opd.objectives.masking import masked_mean
from opd.objectives.policy_gradient import PolicyGradient
from opd.tensors import Completions, Tokens

TINY = math.log(1e-30)
"""Smallest log-prob of a tail: below it a bucket is nothing but rounding."""


Of = Literal["teacher", "student", "union"]


def with_tail(log_probs: Tensor, index: Tensor) -> Tensor:
    """Log-probs [..., k + 1] of the entries `index` [..., k] of [..., V], and of all others together, if there are any.

    An entry may be named twice, and has its log-prob in both places.
    """
    chosen = log_probs.gather(-1, index)
    named = torch.zeros_like(log_probs, dtype=torch.bool).scatter(-1, index, True)
    empty = None
    if index.shape[-1] >= log_probs.shape[-1]:  # an empty bucket would turn the gradient into NaN
        empty = named.all(-1, keepdim=True)
        if empty.all():
            return chosen
        named = named & ~empty
    tail = log_probs.masked_fill(named, -torch.inf).logsumexp(-1, keepdim=True)
    tail = tail if empty is None else tail.masked_fill(empty, TINY)
    return torch.cat([chosen, tail.clamp(min=TINY)], dim=-1)


def log_remainder(log_probs: Tensor) -> Tensor:
    """`log(1 - sum p)` [..., 1] of log-probs [..., k]; where they are the whole distribution, what rounding leaves."""
    inside = log_probs.logsumexp(-1, keepdim=True).clamp(max=-torch.finfo(log_probs.dtype).eps)
    return torch.log(-torch.expm1(inside))


def top_k_teacher(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, k: int, beta: float) -> Tensor:
    """Mean JSD over the mask [B, T] between the teacher's top-k and one tail bucket of both; logits [B, T, V]."""
    log_pi, log_q = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    index = log_q.topk(k, dim=-1).indices
    return masked_mean(jsd(with_tail(log_pi, index), with_tail(log_q, index), beta), mask)


def top_k_student(student_logits: Tensor, teacher_logits: Tensor, tokens: Tensor, mask: Tensor, k: int) -> Tensor:
    """Unbiased estimate [B, T] of KL(pi||q) in nats: the student's top-k exactly, the tail by the sampled token.

    `sum_{v in top-k} pi(v) log(pi(v)/q(v)) + 1[y not in top-k] log(pi(y)/q(y))`, for `y` sampled from `pi`. Only the
    value is unbiased: its derivative leaves out that `y` was drawn from `pi`. `TopK` has the right gradient.
    """
    log_pi, log_q = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    index = log_pi.detach().topk(min(k, log_pi.shape[-1]), dim=-1).indices
    outside = (index != tokens[..., None]).all(-1)
    sampled = (log_pi - log_q).gather(-1, tokens[..., None]).squeeze(-1)
    return (kl(log_pi.gather(-1, index), log_q.gather(-1, index)) + torch.where(outside, sampled, 0.0)).masked_fill(
        ~mask.bool(), 0.0
    )


def likeliest(of: Of, k: int) -> Needs:
    """What a teacher is asked for where the k likeliest tokens of `of` are looked at one by one."""
    return Needs(top_k=k * (of != "student"), student_top_k=k * (of != "teacher"))


def whole(tokens: Tokens) -> Tensor | None:
    """The teacher's log-probs [N, V]; None where it has not given them."""
    return None if tokens.teacher_logits is None else tokens.teacher_logits.log_softmax(-1)


def of_student(tokens: Tokens, log_pi: Tensor, log_q: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Ids [N, k] of the student's likeliest tokens, and the teacher's log-probs of them.

    A server was asked for those of the student that scored: any that were chosen before `y` was seen would do.
    """
    if log_q is None:
        assert tokens.asked_ids is not None
        assert tokens.asked_logprobs is not None
        return tokens.asked_ids[:, :k], tokens.asked_logprobs[:, :k]
    index = log_pi.detach().topk(min(k, log_pi.shape[-1]), dim=-1).indices
    return index, log_q.gather(-1, index)


def buckets(tokens: Tokens, of: Of, k: int) -> tuple[Tensor, Tensor]:
    """Log-probs [N, m + 1] of student and teacher: of the k likeliest tokens of `of`, and of all others together.

    Of the union m is 2k; a token that is in both is the teacher's, and next to nothing (TINY) in the other place.
    """
    log_pi = tokens.logits.log_softmax(-1)
    if of == "student":
        index, log_q = of_student(tokens, log_pi, whole(tokens), k)
    else:
        assert tokens.top_ids is not None
        assert tokens.top_logprobs is not None
        index, log_q = tokens.top_ids[:, :k], tokens.top_logprobs[:, :k]
    again = torch.zeros_like(index, dtype=torch.bool)
    if of == "union":
        own, said = of_student(tokens, log_pi, whole(tokens), k)
        again = torch.cat([again, (own[:, :, None] == index[:, None]).any(-1)], dim=-1)
        index, log_q = torch.cat([index, own], dim=-1), torch.cat([log_q, said], dim=-1).masked_fill(again, TINY)
    mine = with_tail(log_pi, index)
    if mine.shape[-1] > log_q.shape[-1]:
        log_q = torch.cat([log_q, log_remainder(log_q)], dim=-1)
        again = torch.cat([again, torch.zeros_like(again[:, :1])], dim=-1)
    return mine.masked_fill(again, TINY), log_q


@dataclass(frozen=True, kw_only=True)
class TopK(PolicyGradient):
    """Config of `top_k`.

    `of=teacher` sees of the teacher no more than k tokens, which any server sends, and merges the rest: a lower bound
    of the divergence. `of=union` does so with the student's k beside them, which some servers send: where either of the
    two has its mass, the bound is near. `of=student` has the expected gradient of KL(pi||q) itself: exact where the
    student's mass is, with a policy gradient, whose variance is small, for what is left.
    """

    of: Of = "teacher"
    """Whose k likeliest tokens are looked at one by one."""
    k: Annotated[int, Field(ge=1)] = 20
    """How many; a vLLM server sends at most 20, unless it was started with a higher `--max-logprobs`."""
    beta: Annotated[float, Field(ge=0, le=1)] = 1.0
    """As in `gkd`: 0 is the forward KL, 1 the reverse KL. The student's top-k gives the reverse KL only."""
    tail: bool = True
    """Whether the rest counts. Without it, the forward KL draws the student to the teacher's top-k renormalised."""

    def __post_init__(self) -> None:
        """Refuse a truncated divergence that is minimised off its support."""
        if self.of == "student" and self.beta != 1.0:
            raise ValueError(f"beta={self.beta:g}: the student's top-k gives the reverse KL; allowed is beta=1")
        if not self.tail and self.of == "union":
            raise ValueError("tail=false: of=union has one; allowed is tail=true, or of=teacher with beta=0")
        if not self.tail and self.beta != 0.0:
            raise ValueError(
                f"tail=false: without its tail a divergence with beta={self.beta:g} is lowest where the student's mass "
                "has left the top-k; allowed is tail=true, or of=teacher with beta=0"
            )

    @property
    def needs(self) -> Needs:
        """Of the teacher its top-k; and what it says of the student's, alone with tokens that the student wrote."""
        own = self.of == "student"
        return likeliest(self.of, self.k) | Needs(logprobs=own, policy=own)

    def advantages(self, completions: Completions) -> Tensor:
        """None: the divergence is differentiated itself, and a sampled token of the tail judged when it is met."""
        return torch.zeros_like(completions.behavior_logprobs)

    def loss(self, tokens: Tokens) -> Tensor:
        """Divergence at each token, [N]."""
        if self.of == "student":
            return self._of_student(tokens)
        if self.tail:
            return jsd(*buckets(tokens, self.of, self.k), self.beta)
        assert tokens.top_ids is not None
        assert tokens.top_logprobs is not None
        index, log_q = tokens.top_ids[:, : self.k], tokens.top_logprobs[:, : self.k].log_softmax(-1)
        return kl(log_q, tokens.logits.log_softmax(-1).gather(-1, index))

    def _of_student(self, tokens: Tokens) -> Tensor:
        """`sum_{v in top-k} pi_v c_v + 1[y not in top-k] ratio * c_y` with `c = log(pi/q)` held fixed.

        The derivative of `c` itself sums to nothing over the whole vocabulary, but not over a part of it: kept in the
        head alone, it would have to be sampled in the tail, which is noise even where pi equals q.
        """
        log_pi, log_q, sampled = tokens.logits.log_softmax(-1), whole(tokens), tokens.teacher_logprobs
        index, head_q = of_student(tokens, log_pi, log_q, self.k)
        head_pi, outside = log_pi.gather(-1, index), (index != tokens.tokens[:, None]).all(-1)
        if log_q is not None:
            # Of the same normalised distributions as the head; one that the teacher has no column for is in the tail.
            place = tokens.tokens.clamp(max=log_q.shape[-1] - 1)[:, None]
            known = tokens.tokens < log_q.shape[-1]
            sampled = torch.where(known, log_q.gather(-1, place)[:, 0], sampled)
        head = (head_pi.exp() * (head_pi - head_q).detach()).sum(-1)
        advantages = torch.where(outside, sampled - tokens.logprobs.detach(), 0.0)
        return head + self.token_losses(tokens, advantages)
