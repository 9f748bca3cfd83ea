"""Which student a sampled token is judged against, where its advantage is `log q - log pi`.

Source for `now`: AsyncOPD, 2026 (arXiv 2606.24143).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import Tensor

from opd.objectives.policy_gradient import PolicyGradient
from opd.tensors import Completions


@dataclass(frozen=True, kw_only=True)
class LogRatio(PolicyGradient):
    """Settings of every objective whose advantages are `log q - log pi` of sampled tokens.

    A policy gradient of KL(pi||q) at the weights that it moves wants *their* `log pi` in the advantage. While samples
    are those weights' own it is the `log pi` that came with them. Samples of an older student bring an older one:
    the gradient is then not that of a KL any more, and `pi / mu` does not mend it, which corrects how often a
    token is drawn and not what is said of it. `now` is the KL's gradient at the student of now wherever the older one
    led, in single tokens exactly. What sums over later tokens has these as the older student went on, judged by now.
    """

    student: Literal["sampled", "now"] | None = None
    """Whose `log pi` the teacher's is compared with. `sampled`: that of the weights that drew the sample, as it came
    with it; `now`: that of the weights that are trained. None: chosen by the run; `sampled` where none is stale, which
    some are of several optimizer steps a batch, of engines that write ahead, and of a record."""

    @property
    def now(self) -> bool:
        """Whether it is the student of now that is judged."""
        return self.student == "now"

    def judging_now(self) -> Self:
        """The same for a run whose samples are stale: where nothing was chosen, the student of now is judged."""
        return replace(self, student=self.student or "now")

    def judged(self, completions: Completions) -> Tensor:
        """`log pi` of the student that is judged, [B, T]."""
        if not self.now:
            return completions.policy_logprobs
        assert completions.current_logprobs is not None
        return completions.current_logprobs
