"""The values that flow through a run, in the order in which a step makes them. Imports nothing of `opd`.

What the learner makes of them is in `opd.tensors`, with the legend of shapes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "eval"]
Message = Mapping[str, Any]
"""A chat turn: `role` and `content`, texts, and what more the template reads (`tool_calls`, `reasoning_content`)."""
TokenPair = tuple[Sequence[int], Sequence[int]]
"""Prompt ids and completion ids."""
Weights = Iterable[tuple[str, "Tensor"]]
"""Checkpoint names and tensors, of a student as they are at that moment; may be taken more than once."""
ROUNDING = 1e-3
"""Nats that a log-prob may be above 0 where it is read: that of a certain token, rounded."""
P = ParamSpec("P")


@dataclass(frozen=True)
class _Anew:
    make: Callable[[], Iterator[tuple[str, Tensor]]]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self.make()


def again(make: Callable[P, Iterator[tuple[str, Tensor]]]) -> Callable[P, Weights]:
    """A function that makes weights as one whose weights can be taken more than once: each time they are made anew."""

    @wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> Weights:
        return _Anew(partial(make, *args, **kwargs))

    return call


class UserError(Exception):
    """A mistake that the person at the keyboard can mend: shown as one line, exit code 2."""

    @property
    def each(self) -> tuple[str, ...]:
        """What is said, a line for each mistake."""
        return (str(self),)


class Mistakes(UserError):
    """Several at once, in the order in which a person would mend them."""

    @property
    def each(self) -> tuple[str, ...]:
        """As they were given."""
        return self.args

    def __str__(self) -> str:
        return "; ".join(f"{i}. {said}" for i, said in enumerate(self.args, 1))


class RunError(Exception):
    """A run that cannot go on (a NaN loss, a failed preflight): shown without a traceback, exit code 1."""


class PartError(RunError):
    """A mistake in a part of the user's own that showed when the run was under way: named by file and line."""


@dataclass(frozen=True)
class Pretrained:
    """A model that can be loaded, with what everything that loads a part of it has to know."""

    path: str
    """Folder or hub name."""
    trust_remote_code: bool = False
    """Whether Python code that comes with it may run."""

    def __post_init__(self) -> None:
        """Put the home folder in, so that no library takes `~/model` for a hub name."""
        object.__setattr__(self, "path", os.path.expanduser(self.path))

    def __str__(self) -> str:
        """Where it is."""
        return self.path

    @classmethod
    def of(cls, model: str | Pretrained) -> Pretrained:
        """The same, or the model at a place whose code may not run."""
        return model if isinstance(model, Pretrained) else cls(model)


@dataclass(frozen=True)
class Example:
    """One task item, before any tokenizer has seen it."""

    id: str
    """Stable across processes and sessions: the same item has the same id."""
    messages: tuple[Message, ...]
    """Chat turns, `{"role": ..., "content": ...}`; for a base model the contents are joined as plain text."""
    answer: str = ""
    """What the verifier compares with; empty where the task has none."""
    task: str = ""
    """Key of the task in `data.tasks`, filled in by the data loader: verifiers and routers go by it."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the item."""
    completion: str = ""
    """What the dataset answers, for sources and contexts that use it; empty where it does not."""
    closing: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the turn that it answers with: `reasoning_content`, `tool_calls`."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What the chat template is to say of tools."""
    where: str = field(default="", compare=False)
    """File and line of its row, for messages; empty where it has none."""

    @property
    def name(self) -> str:
        """What people know it by: where it is, else its id."""
        return self.where or f"example {self.id}"


@dataclass(frozen=True)
class Prompt:
    """An example as the student reads it."""

    example: Example
    tokens: tuple[int, ...]
    """Token ids of the rendered prompt, generation prompt included."""


@dataclass(frozen=True)
class Repetition:
    """When a completion that repeats itself is ended: cut as at `max_tokens`, without an end to train."""

    longest: int | None = None
    """Tokens of the longest pattern that is looked for; null: none is."""
    shortest: int = 1
    """Tokens of the shortest one."""
    times: int = 8
    """So many times in a row, and the completion is ended."""

    def __post_init__(self) -> None:
        """Refuse what would end everything, or nothing."""
        if self.shortest < 1:
            raise ValueError(f"shortest={self.shortest}: allowed is a whole number from 1")
        if self.times < 2:
            raise ValueError(f"times={self.times}: allowed is a whole number from 2, since once is no repetition")
        if self.longest is not None and self.longest < self.shortest:
            raise ValueError(f"longest={self.longest}: allowed is at least shortest={self.shortest}, or null")


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
    places: tuple[int, ...] = ()
    """Where in the whole call each request stands, if this is a part of one; empty: 0, 1, 2, ..."""
    repetition: Repetition = Repetition()
    """When one that goes round in circles is ended."""
    trial: Sampling | None = None
    """What is drawn with in earnest, where this is a short try before it: nothing of it is kept. None: it counts."""


@dataclass(frozen=True)
class Rollout:
    """One completion, whoever wrote it."""

    prompt: Prompt
    tokens: tuple[int, ...]
    """Completion ids, T of them, the terminating EOS included; may be empty."""
    logprobs: tuple[float, ...]
    """`log mu` of each token, natural log, T of them; NaN where the student's policy did not write it."""
    truncated: bool
    """Cut at `max_tokens`, or where it repeated itself, so that there is no EOS to train."""
    version: int = 0
    """How many optimizer steps the sampling weights had seen."""
    origin: str = "student"
    """The part of the source that it came from; `given` where an evaluation compared texts that no model wrote."""
    writers: tuple[Literal["student", "teacher"], ...] = ("student",)
    """Whose work its tokens are, each having gone through all of them; none: they were given."""
    trained: tuple[bool, ...] | None = None
    """False for tokens that an environment wrote, T of them; None: all are trained."""
    policy_logprobs: tuple[float, ...] | None = None
    """`log pi` of the sampling weights where `mu` is another distribution (teacher-mixed sampling); None: the same."""
    reward: float | None = None
    """What an environment gave; None leaves it to the task's verifier."""
    tries: int = 0
    """Prompts that were taken up in its place before its own, and given up."""
    beside: tuple[tuple[Literal["student", "teacher"], int, int], ...] = ()
    """What was written for it and is not kept: by whom, tokens of the prompt and of the completion."""

    @property
    def mask(self) -> tuple[bool, ...]:
        """Which tokens are trained, T of them."""
        return (True,) * len(self.tokens) if self.trained is None else self.trained


@dataclass(frozen=True)
class Reads:
    """What one model reads to judge rollouts."""

    lengths: Sequence[tuple[int, int]]
    """Tokens of prompts and completions, its own ones."""
    trained: int
    """Trained tokens: its head is applied to them again where its whole distribution is learned from."""
    split: Any = None
    """The `opd.models.heads.SplitModel`; None: the model is elsewhere."""
    name: str = ""
    """Of the model, where a teacher has several."""

    @classmethod
    def of(cls, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]], split: Any = None) -> Reads:
        """The student's completions, each after the ids in the place of its prompt."""
        lengths = [(len(ids), len(r.tokens)) for ids, r in zip(prompts, rollouts, strict=True)]
        return cls(lengths, sum(sum(r.mask) for r in rollouts), split)


@dataclass(frozen=True)
class Judgement:
    """What a teacher says of the T tokens of one rollout; tensors on the CPU."""

    logprobs: Tensor
    """`log q(y_t | x, y_<t)`, float32 [T]; NaN where it has nothing to say. With `spans`: each span's, shared out
    evenly among its tokens, so that sums over whole spans are right."""
    state: Tensor | None = None
    """[T, S], of which only the scorer that made it can make logits; None unless `distribution` was needed."""
    top_ids: Tensor | None = None
    """Int64 [T, k], likeliest first; None unless `top_k` was needed."""
    top_logprobs: Tensor | None = None
    """Float32 [T, k]."""
    asked_ids: Tensor | None = None
    """Int64 [T, k]: the student's likeliest tokens; None unless `student_top_k` was needed, and there is no state."""
    asked_logprobs: Tensor | None = None
    """Float32 [T, k]: what the teacher says of them."""
    spans: Tensor | None = None
    """Int64 [T]: tokens of one number spell the same bytes as some tokens of the teacher; -1: no such group."""
    kept: bool = False
    """Read back from what was written down before: no model was asked."""


@dataclass(frozen=True)
class Scored:
    """A rollout with what the judges say of it."""

    rollout: Rollout
    teacher: Judgement
    reference: Judgement | None = None
    reward: float | None = None
    """The verifier's score, or None where the task has no verifier or no one asked."""

    def without_distributions(self) -> Scored:
        """The same without what whole distributions are made of, which is large and has been trained on."""
        return replace(self, teacher=replace(self.teacher, state=None))
