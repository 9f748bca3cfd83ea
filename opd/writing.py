"""What writes completions, as the loop and each other see it: engines, and the sources that ask them.

As in `opd.protocols`, of which these are the part that is about writing what is learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from opd.devices.team import Solo, Team
from opd.protocols import Task
from opd.types import (
    Example,
    Message,
    Pretrained,
    Prompt,
    Rollout,
    Sampling,
    Scored,
    TokenPair,
    UserError,
    Weights,
)

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Sampler(Protocol):
    """A started engine."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `n` completions per prompt, in prompt order, the samples of one prompt together."""
        ...

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
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

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Sampler:
        """Load `model`; `max_len` bounds prompt and completion together."""
        ...


@runtime_checkable
class Spreading(Engine, Protocol):
    """Settings of an engine that can have its model on several devices."""

    def spread(self, devices: int) -> Engine:
        """The same, with a part of every layer on each of so many; it is to be started in a process of its own."""
        ...


@runtime_checkable
class Follower(Protocol):
    """A part of a source that goes by what has become of its completions; its state is in a run's checkpoints."""

    def told(self, scored: Sequence[Scored]) -> Mapping[str, float]:
        """Look at the completions of a step, all of them, before the next is written; returns figures of the run."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors that `load_state` goes on from."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from them."""
        ...


def _none_other(prompt: Prompt, seed: int) -> Prompt:
    raise UserError(f"data.tasks.{prompt.example.task}: no other prompts can be drawn here")


@dataclass(frozen=True)
class Desk:
    """What a source writes with."""

    engine: Sampler
    """Samples the student."""
    teacher_engine: Callable[[], Sampler]
    """Starts, on the first call, an engine that samples the teacher; closed with the run."""
    read: Callable[[Sequence[Prompt]], list[Sequence[int]]]
    """Each prompt as the teacher is shown it."""
    tokenizer: Any
    """The student's."""
    task: Callable[[Example], Task]
    """The task that an example belongs to."""
    tasks: frozenset[str] = frozenset()
    """Names of all tasks."""
    rendering: Mapping[str, Any] = field(default_factory=dict)
    """`template` and `template_kwargs` that prompts are rendered with, and so what follows them."""
    model_engine: Callable[[str], Sampler] | None = None
    """Starts an engine that samples the model in a folder or of a hub name; None where no other model can write."""
    teacher_model: Callable[[], Pretrained | None] = lambda: None
    """The checkpoint that the teacher's engine samples; None where it has none, or that is not known."""
    finished: Callable[[Rollout], None] = lambda rollout: None
    """To be told of every rollout that will be handed over as it is: its judge may begin with it."""
    team: Team = field(default_factory=Solo)
    """Who writes: what an environment says is asked for once, by one of them."""
    another: Callable[[Prompt, int], Prompt] = _none_other
    """Draws another train prompt of the same task, by a seed alone; of a task that has one alone, that."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=512))
    """How completions are drawn that belong to no step: with all the room that there is, and a seed of the run."""
    folder: Path | None = None
    """The run's, which is there once its first step begins; None: nothing is kept."""
    followers: list[Follower] = field(default_factory=list)
    """Those who are to be told what becomes of completions put themselves here when they start."""


class Writer(Protocol):
    """A started source."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Write `n` completions of each prompt, in prompt order, the samples of one prompt together.

        What it draws depends on `sampling.seed` alone.
        """
        ...


@runtime_checkable
class Giving(Protocol):
    """A writer of what the data gives: what is wrong with a row is told before the first step, not when it is drawn."""

    def given(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Rollout]:
        """The completion of each prompt whose completion the data gives.

        Raises:
            UserError: one cannot be trained on.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """Settings of who writes the completions that are trained on."""

    @property
    def policy(self) -> bool:
        """Whether all of them are written by the student's policy, with log mu: what a policy gradient needs."""
        ...

    @property
    def origins(self) -> frozenset[str]:
        """What its rollouts may have as `origin`."""
        ...

    def start(self, desk: Desk) -> Writer:
        """Make it ready; raises UserError where what it needs is not to be had."""
        ...


@runtime_checkable
class Repeating(Protocol):
    """A source that may have one completion of each prompt alone, and gives it as often as it is asked."""

    @property
    def repeats(self) -> bool:
        """Whether that is all that it writes, so that several samples of a prompt cost more and teach nothing more."""
        ...


@runtime_checkable
class Environment(Protocol):
    """A task that answers back: beside its prompts it has further turns."""

    def reply(self, example: Example, messages: Sequence[Message]) -> Sequence[Message] | None:
        """Answer a conversation whose last turn is the student's; None where it is over. Verified as ever."""
        ...
