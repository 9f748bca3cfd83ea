"""Reverse KL by policy gradient: the advantage of a token is how much likelier the teacher found it.

Sources: "On-Policy Distillation", Thinking Machines Lab, 2025, and the Tinker cookbook's recipe; the two baselines: Oh
et al., "KL for a KL", 2026 (vOPD, arXiv 2605.07865), who find that the one from the top-k is no worse than the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.gkd import jsd, kl
from opd.objectives.log_ratio import LogRatio
from opd.objectives.masking import discounted_sum
from opd.objectives.top_k import Of, buckets, likeliest
from opd.tensors import Completions, Tokens


def reverse_kl_advantages(
    teacher_logprobs: Tensor, student_logprobs: Tensor, mask: Tensor, coef: float = 1.0, discount: float = 0.0
) -> Tensor:
    """`A_t = coef * sum_{k>=t} discount^(k-t) (log q_k - log pi_k)`, detached, [B, T], 0 where masked.

    With `discount=0` it is the estimator of the per-token ("greedy") reverse KL, biased for the sequence-level one by
    leaving out what a token does to the later ones; `discount=1` is the unbiased one of the sequence, noisier by far.
    """
    mask = mask.bool()
    rewards = (teacher_logprobs - student_logprobs).detach().masked_fill(~mask, 0.0)
    return (coef * discounted_sum(rewards, discount)).masked_fill(~mask, 0.0)


@dataclass(frozen=True, kw_only=True)
class ReverseKL(LogRatio):
    """Config of `reverse_kl`, the default objective.

    The estimators have one expected gradient, that of `coef * KL(pi||q)` at each visited position; none is biased for
    it. They differ in variance: the exact one has none but that of which positions are visited; the baseline mostly
    lowers the sampled one's, the more the further the two are apart (it is not the best baseline, only a cheap one).
    Both need the teacher's whole distribution. The baseline from k tokens needs no more than a server gives: any number
    would do that does not depend on the token drawn. Chosen here: the rest is one bucket of it, so that it is a lower
    bound of the KL, and the whole of it where k tokens are the vocabulary.
    """

    estimator: Literal["sampled", "baseline", "top_k", "exact"] = "sampled"
    """What of the teacher's distribution counts: `exact` takes the fewest steps where all of it is to be had.
    `sampled`: the advantage of the sampled token, `r_t = log q - log pi`; `baseline`: the same less its mean over
    the vocabulary, `-KL(pi||q)`; `top_k`: less what k tokens and one bucket of all others say of that mean; `exact`:
    the KL itself over the vocabulary, differentiated."""
    of: Of = "student"
    """`top_k`: whose k likeliest tokens; `teacher` is what any server gives, `student` the source's."""
    k: Annotated[int, Field(ge=1)] = 20
    """`top_k`: how many of them; of the union as many of each."""
    to: Literal["teacher", "reference"] = "teacher"
    """Whose distribution the student is drawn to."""
    coef: Annotated[float, Field(gt=0)] = 1.0
    """Scale of the advantages."""
    discount: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far a token answers for the disagreement that follows it; 0: for its own only."""
    extrapolate: Annotated[float, Field(gt=0)] = 1.0
    """The target is `extrapolate * log q + (1 - extrapolate) * log reference`: above 1 it goes past the teacher, away
    from the reference. It is no normalised distribution, which a policy gradient does not need."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Advantages are cut to [-clip, clip] (after discounting); None leaves them."""

    def __post_init__(self) -> None:
        """Refuse settings that an estimator does not read."""
        if self.estimator == "exact" and (self.discount or self.clip):
            given = f"discount={self.discount:g}" if self.discount else f"clip={self.clip:g}"
            raise ValueError(f"{given}: the exact estimator has no advantages; allowed is estimator=sampled")
        if self.estimator == "exact" and self.student == "sampled":
            raise ValueError("student=sampled: the exact estimator differentiates the student of now; allowed is now")
        if self.estimator != "top_k" and (self.of, self.k) != ("student", 20):
            given = f"k={self.k}" if self.of == "student" else f"of={self.of}"
            raise ValueError(f"{given}: it is not read with estimator={self.estimator}; allowed is estimator=top_k")
        other = self.to != "teacher" or self.extrapolate != 1.0
        if self.estimator != "sampled" and other:
            given = "to=reference" if self.to != "teacher" else f"extrapolate={self.extrapolate:g}"
            raise ValueError(f"{given}: only the teacher's distribution is at hand; allowed is estimator=sampled")
        if self.to != "teacher" and self.extrapolate != 1.0:
            raise ValueError(f"extrapolate={self.extrapolate:g}: it needs the teacher; allowed is to=teacher")

    @property
    def needs(self) -> Needs:
        """Log-probs of the sampled tokens; the baseline and the exact estimator want the whole distribution."""
        tops = likeliest(self.of, self.k) if self.estimator == "top_k" else Needs()
        return tops | Needs(
            logprobs=self.to == "teacher",
            reference=self.to == "reference" or self.extrapolate != 1.0,
            distribution=self.estimator in ("baseline", "exact"),
            policy=self.estimator != "exact",
            current=self.now and not self._alone,
        )

    @property
    def _alone(self) -> bool:
        """Whether a token answers for itself alone, so that its loss knows all that it is judged by."""
        return self.discount == 0.0

    def advantages(self, completions: Completions) -> Tensor:
        """Advantages of the student that is judged; if that of now, and each token alone, without its `log pi`."""
        c = completions
        target = c.teacher_logprobs if self.to == "teacher" else c.reference_logprobs
        if self.extrapolate != 1.0:
            target = self.extrapolate * target + (1 - self.extrapolate) * c.reference_logprobs
        judged = torch.zeros_like(target) if self.now and self._alone else self.judged(c)
        return reverse_kl_advantages(target, judged, c.mask, self.coef, self.discount)

    def loss(self, tokens: Tokens) -> Tensor:
        """Loss of each token, [N]."""
        advantages = tokens.advantages
        if self.now and self._alone:
            advantages = advantages - self.coef * tokens.logprobs.detach()
        if self.estimator == "exact":
            return self.coef * self._divergence(tokens)
        if self.estimator != "sampled":
            # A number that does not depend on the token drawn: it moves no mean, only the variance.
            with torch.no_grad():
                advantages = advantages + self.coef * self._divergence(tokens)
        return self.token_losses(tokens, advantages if self.clip is None else advantages.clamp(-self.clip, self.clip))

    def _divergence(self, tokens: Tokens) -> Tensor:
        """KL(pi||q) at each token, [N], or what k tokens say of it."""
        if self.estimator == "top_k":
            return jsd(*buckets(tokens, self.of, self.k), 1.0)
        assert tokens.teacher_logits is not None
        return kl(tokens.logits.log_softmax(-1), tokens.teacher_logits.log_softmax(-1))
