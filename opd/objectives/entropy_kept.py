"""Reverse KL by policy gradient that keeps the student's entropy: what would contract it counts less.

Source: IDA-OPD, 2026 (arXiv 2608.29846), by its idea: advantages that contract entropy are scaled down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from opd.objectives.gkd import kl
from opd.objectives.reverse_kl import ReverseKL
from opd.tensors import Tokens


def contracts(advantages: Tensor, logprobs: Tensor, entropy: Tensor) -> Tensor:
    """`A (log pi(y) + H) > 0`, bool [N]: a likelier token than the mean one is raised, or a less likely one lowered.

    A small step along A, `pi exp(eta A) / Z`, changes the entropy by `-eta * E_pi[A (log pi + H)]`: these tokens are
    those that lower it.
    """
    return advantages * (logprobs + entropy) > 0


@dataclass(frozen=True, kw_only=True)
class EntropyKept(ReverseKL):
    """Config of `entropy_kept`: `reverse_kl` with `A_t` scaled where `A_t (log pi(y_t) + H(pi)) > 0`.

    Chosen here: which advantages contract is told by that sign, of the student that is trained, and all of them are
    scaled alike. With a scale below 1 the expected gradient is that of no KL any more.
    """

    contracting: Annotated[float, Field(ge=0, le=1)] = 0.5
    """What advantages that lower the student's entropy are multiplied with; 1 is `reverse_kl`."""

    def __post_init__(self) -> None:
        """Refuse an estimator that samples nothing."""
        super().__post_init__()
        if self.estimator == "exact":
            raise ValueError("estimator=exact: it has no advantages; allowed is estimator=sampled, baseline or top_k")

    def token_losses(self, tokens: Tokens, advantages: Tensor) -> Tensor:
        """Policy-gradient loss of each token, [N], under advantages [N] of which some are scaled."""
        log_pi = tokens.logits.detach().log_softmax(-1)
        entropy = -kl(log_pi, log_pi.new_zeros(()))
        less = contracts(advantages, tokens.logprobs.detach(), entropy)
        return super().token_losses(tokens, advantages.where(~less, self.contracting * advantages))
