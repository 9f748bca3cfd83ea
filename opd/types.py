"""The values that flow through a run, in the order in which a step makes them. Imports nothing of `opd`.

Legend of shape suffixes: B sequences, T completion positions (padded), N trained tokens (flat), V vocabulary,
H hidden size, R packed rows, L tokens in a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal["logprobs", "distribution", "rewards"]
Split = Literal["train", "eval"]
Weights = Iterable[tuple[str, "Tensor"]]


class UserError(Exception):
    """A mistake that the person at the keyboard can mend: shown as one line, exit code 2."""


class RunError(Exception):
    """A run that cannot go on (a NaN loss, a failed preflight): shown without a traceback, exit code 1."""


@dataclass(frozen=True)
class Example:
    """One task item, before any tokenizer has seen it."""

    id: str
    """Stable across processes and sessions: the same item has the same id."""
    messages: tuple[Mapping[str, str], ...]
    """Chat turns, `{"role": ..., "content": ...}`; for a base model the contents are joined as plain text."""
    answer: str = ""
    """What the verifier compares with; empty where the task has none."""
    task: str = ""
    """Key of the task in `data.tasks`, filled in by the data loader: verifiers and routers go by it."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the item."""


@dataclass(frozen=True)
class Prompt:
    """An example as the student reads it."""

    example: Example
    tokens: tuple[int, ...]
    """Token ids of the rendered prompt, generation prompt included."""


@dataclass(frozen=True)
class Sampling:
    """How an engine draws completions. `mu` is the distribution that results."""

    max_tokens: int
    n: int = 1
    """Samples per prompt."""
    temperature: float = 1.0
    """0 is greedy; log-probs are then those of temperature 1."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means the whole vocabulary."""
    min_p: float = 0.0
    stop: tuple[int, ...] = ()
    """Token ids that end a completion; the one that does is kept as its last token."""
    seed: int = 0
    """Every request's own seed is derived from this one and the request's place in the call."""


@dataclass(frozen=True)
class Rollout:
    """One completion that an engine sampled."""

    prompt: Prompt
    tokens: tuple[int, ...]
    """Completion ids, T of them, the terminating EOS included; may be empty."""
    logprobs: tuple[float, ...]
    """`log mu` of each token, natural log, T of them."""
    truncated: bool
    """Cut at `max_tokens`, so that there is no EOS to train."""
    version: int = 0
    """How many optimizer steps the sampling weights had seen."""


@dataclass(frozen=True)
class Scored:
    """A rollout with the teacher's and the verifier's word on it."""

    rollout: Rollout
    teacher_logprobs: Tensor
    """`log q(y_t | x, y_<t)`, float32 [T], on the CPU."""
    teacher_hidden: Tensor | None = None
    """The teacher's last hidden states that predict each token, [T, H]; None unless `distribution` was needed."""
    reward: float | None = None
    """The verifier's score, or None where the task has no verifier or no one asked."""


@dataclass(frozen=True)
class Completions:
    """All completions of one optimizer step, padded to [B, T]: what advantages are computed from."""

    behavior_logprobs: Tensor
    """`log mu`, float32 [B, T]; 0 where masked."""
    teacher_logprobs: Tensor
    """`log q`, float32 [B, T]; 0 where masked."""
    mask: Tensor
    """Which tokens are trained, bool [B, T]."""
    rewards: Tensor
    """Float32 [B]; NaN where there is none."""
    groups: Tensor
    """Int64 [B]: sequences of one prompt share a number."""


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

    behavior_logprobs: Tensor
    """`log mu`, float32 [N]."""
    teacher_logprobs: Tensor
    """`log q`, float32 [N]."""
    teacher_hidden: Tensor | None = None
    """[N, H of the teacher]."""


@dataclass(frozen=True)
class Batch:
    """One optimizer step."""

    completions: Completions
    micro: tuple[MicroBatch, ...]
    trained: int
    """Number of trained tokens in the whole step: the denominator of every loss."""
    padding: float
    """Share of the R*L positions that hold no sequence, in [0, 1]."""


@dataclass(frozen=True)
class Vocabulary:
    """What a teacher needs to know of the student's tokens."""

    tokenizer: Any
    """The student's transformers tokenizer."""
    size: int
    """Columns of the student's output head, padding rows included."""


# The parts of a run. Each is named by the `_target_` of its YAML: a frozen dataclass whose fields are its config. Heavy
# ones load in `start()`, which returns the live object; the loop sees only the methods below.


@runtime_checkable
class Task(Protocol):
    """Prompts and the verifier that goes with them."""

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; procedural tasks make them on access. `train` and `eval` share none."""
        ...

    def verify(self, example: Example, text: str) -> float | None:
        """Score a completion's text in [0, 1]; None where the task cannot judge."""
        ...


class Sampler(Protocol):
    """A started engine."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `n` completions per prompt, in prompt order, the samples of one prompt together."""
        ...

    def logprobs(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Teacher-forced log-probs at temperature 1 of each (prompt ids, completion ids)."""
        ...

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights in place, by checkpoint names, and forget every cache made with the old ones."""
        ...

    def close(self) -> None:
        """Free everything; calling it twice is fine."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Settings of a rollout engine."""

    def start(self, model: str, *, max_len: int, seed: int) -> Sampler:
        """Load the checkpoint folder or hub name `model`; `max_len` bounds prompt and completion together."""
        ...


class Scorer(Protocol):
    """A started teacher."""

    def score(self, rollouts: Sequence[Rollout], needs: frozenset[Need]) -> list[Scored]:
        """Judge every token of every rollout; rewards are left to the task."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [N, V] of hidden states [N, H] it handed over, at its temperature, without a graph.

        Only called on a teacher that provides `distribution`.
        """
        ...

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """What a person should know of how it reads the student's tokens and prompts; empty where all is alike."""
        ...

    def close(self) -> None:
        """Free everything; calling it twice is fine."""
        ...


@runtime_checkable
class Teacher(Protocol):
    """Settings of a teacher."""

    @property
    def provides(self) -> frozenset[Need]:
        """What it can hand over; compared with the objective's `needs` before any weight is read."""
        ...

    def checkpoint(self) -> str | None:
        """Folder or hub name that an engine could sample the teacher from; None where there is no such thing."""
        ...

    def start(self, vocabulary: Vocabulary) -> Scorer:
        """Load the teacher; raises UserError where it does not share the student's vocabulary."""
        ...


@dataclass(frozen=True)
class Tokens:
    """One chunk of N trained tokens as an objective sees it, while its logits exist."""

    logits: Tensor
    """The student's, float32 [N, V], divided by the sampling temperature, with a graph."""
    tokens: Tensor
    """Int64 [N]."""
    logprobs: Tensor
    """`log pi(y_t)`, float32 [N], with a graph."""
    behavior_logprobs: Tensor
    """`log mu(y_t)`, float32 [N]."""
    teacher_logprobs: Tensor
    """`log q(y_t)`, float32 [N]."""
    advantages: Tensor
    """Float32 [N], detached."""
    teacher_logits: Tensor | None
    """Float32 [N, V], detached; None unless the objective needs `distribution`."""


@runtime_checkable
class Objective(Protocol):
    """What to learn from a scored token."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the teacher and the task must provide."""
        ...

    def advantages(self, completions: Completions) -> Tensor:
        """Per-token advantages, float32 [B, T], detached, 0 where masked."""
        ...

    def loss(self, tokens: Tokens) -> Tensor:
        """Loss of each token, [N]; the learner sums it and divides by the step's trained tokens."""
        ...


@runtime_checkable
class ModelSource(Protocol):
    """A checkpoint that is made or converted on first use, and cached."""

    def path(self) -> str:
        """Return a folder in Hugging Face layout, making it first if it is not there yet."""
        ...
