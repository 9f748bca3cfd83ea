"""The tensors of an optimizer step, in the order in which it makes them. Imports nothing of `opd`.

Legend of shape suffixes: B sequences, T completion positions (padded), N trained tokens (flat), V vocabulary,
H hidden size, R packed rows, L tokens in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, device

Advantages: TypeAlias = "Tensor | Mapping[str, Advantages]"
"""A tensor, or several by names, whose first dimensions are [B, T], or [N] of N tokens."""


def each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A tensor as `change` makes it, or each one in a mapping; None stays."""
    if isinstance(value, Mapping):
        return {name: each(change, inner) for name, inner in value.items()}
    return None if value is None else change(value)


@dataclass(frozen=True)
class Completions:
    """All completions of one optimizer step, padded to [B, T]: what advantages are computed from."""

    behavior_logprobs: Tensor
    """`log mu`, float32 [B, T]; 0 where masked, NaN where the student did not write."""
    policy_logprobs: Tensor
    """`log pi` of the weights that sampled, float32 [B, T]: the same, but for teacher-mixed sampling."""
    teacher_logprobs: Tensor
    """`log q`, float32 [B, T]; 0 where masked, NaN where the teacher says nothing."""
    reference_logprobs: Tensor
    """Of the reference model, float32 [B, T]; NaN where there is none."""
    spans: Tensor
    """Int64 [B, T]: span numbers within each sequence; -1 where masked or in no span."""
    mask: Tensor
    """Which tokens are trained, bool [B, T]."""
    rewards: Tensor
    """Float32 [B]; NaN where there is none."""
    groups: Tensor
    """Int64 [B]: sequences of one prompt share a number."""
    origins: tuple[str, ...]
    """B names of the source's parts."""
    seeds: Tensor
    """Int64 [B]: of what is drawn for a sequence; made of its tokens and of the step that trains it."""
    step_tokens: Tensor | None = None
    """Int64 [B]: trained tokens of the optimizer step that trains each sequence, its loss's denominator; None: those
    of `mask`. They are of the whole step where these are the sequences of one origin alone."""
    step_completions: Tensor | None = None
    """Int64 [B]: completions of that step that have trained tokens, likewise."""
    current_logprobs: Tensor | None = None
    """`log pi` of the weights that are trained, float32 [B, T]: of the tokens that this optimizer step trains, 0 at all
    others; None unless the objective needs `current`."""
    current_entropy: Tensor | None = None
    """Of the distributions that those tokens were drawn from, nats, likewise; None unless it needs `entropy`."""


@dataclass(frozen=True)
class Signals:
    """What is known of N trained tokens beside the student's own logits."""

    behavior_logprobs: Tensor
    """`log mu(y_t)`, float32 [N]; NaN where the student did not write."""
    policy_logprobs: Tensor
    """`log pi(y_t)` of the weights that sampled, float32 [N]: the same, but for teacher-mixed sampling."""
    teacher_logprobs: Tensor
    """`log q(y_t)`, float32 [N]; NaN where the teacher says nothing."""
    teacher_state: Tensor | None = None
    """[N, S of the teacher]."""
    top_ids: Tensor | None = None
    """Int64 [N, k]."""
    top_logprobs: Tensor | None = None
    """Float32 [N, k]."""
    asked_ids: Tensor | None = None
    """Int64 [N, k], of the student's likeliest tokens; None where the teacher's whole distribution is there instead."""
    asked_logprobs: Tensor | None = None
    """Float32 [N, k], the teacher's."""
    span_starts: Tensor | None = None
    """Bool [N]: the token begins a byte span, so that both models' next-token distributions speak of the same place."""

    def select(self, rows: slice | Tensor) -> Signals:
        """The same for some of the tokens."""
        chosen: dict[str, Any] = each(itemgetter(rows), vars(self))
        return Signals(**chosen)


@dataclass(frozen=True)
class Packed:
    """Sequences laid out to go through a model at once: R rows of L positions, several sequences to a row."""

    input_ids: Tensor
    """Int64 [R, L]; the pad id where no sequence lies."""
    position_ids: Tensor
    """Int64 [R, L], from 0 at the start of every sequence: this is what keeps packed sequences apart."""
    rows: Tensor
    """Int64 [N], indices into the flattened R*L positions whose *next* token counts (the only shift there is)."""
    tokens: Tensor
    """Int64 [N], those next tokens."""
    where: Tensor
    """Int64 [N], indices into a flattened [B, T] table of completions: ties each token to what is known of it."""
    sequences: tuple[int, ...]
    """Which sequences lie here, in the order in which their tokens follow each other in `tokens`."""


@dataclass(frozen=True)
class MicroBatch(Packed):
    """Part of an optimizer step, with the signals on its N trained tokens."""

    signals: Signals

    def to(self, device: device) -> MicroBatch:
        """The same with its tensors on another device."""
        names = ("input_ids", "position_ids", "rows", "tokens", "where")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        signals: dict[str, Any] = each(lambda t: t.to(device, non_blocking=True), vars(self.signals))
        return replace(self, **moved, signals=Signals(**signals))


@dataclass(frozen=True)
class Batch:
    """One optimizer step."""

    completions: Completions
    """All of the sampling, of which this may be one of several steps."""
    micro: tuple[MicroBatch, ...]
    trained: int
    """Number of trained tokens in the whole step: the denominator of every loss."""
    padding: float
    """Share of the R*L positions that hold no sequence, in [0, 1]."""


@dataclass(frozen=True)
class Tokens(Signals):
    """One chunk of N trained tokens as an objective sees it, while its logits exist."""

    logits: Tensor = field(kw_only=True)
    """The student's, float32 [N, V], divided by the sampling temperature, with a graph."""
    tokens: Tensor = field(kw_only=True)
    """Int64 [N]."""
    logprobs: Tensor = field(kw_only=True)
    """`log pi(y_t)`, float32 [N], with a graph."""
    advantages: Any = field(kw_only=True)
    """What the objective's own `advantages` gave for them, float32 [N] for [B, T], detached."""
    teacher_logits: Tensor | None = field(default=None, kw_only=True)
    """Float32 [N, V], detached; None unless the objective needs `distribution`."""
    shared: tuple[Tensor, Tensor] | None = field(default=None, kw_only=True)
    """Columns of the student's and of the teacher's logits that are the same token, where the two have different
    tokenizers; None: the columns are the same."""

    def select(self, rows: slice | Tensor) -> Tokens:
        """The same for some of the tokens."""
        return Tokens(**each(itemgetter(rows), vars(self) | {"shared": None}) | {"shared": self.shared})
