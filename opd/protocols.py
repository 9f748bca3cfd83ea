"""The parts of a run, as the loop and each other see them. Imports only the values that they pass on.

Each is named by the `_target_` of its YAML: a frozen dataclass whose fields are its config. Heavy ones load in
`start()`, which returns the live object; the loop sees only the methods below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from opd.devices.launch import Job
from opd.devices.team import Solo, Team
from opd.needs import Needs
from opd.tensors import Advantages, Completions, Tokens
from opd.types import (
    Example,
    Message,
    Pretrained,
    Prompt,
    Rollout,
    Sampling,
    Scored,
    Split,
    TokenPair,
    UserError,
    Weights,
)

if TYPE_CHECKING:
    from torch import Tensor

    from opd.devices.engines import EngineProcesses


@runtime_checkable
class Task(Protocol):
    """Prompts and the verifier that goes with them."""

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; procedural tasks make them on access. `train` and `eval` share none."""
        ...

    def verify(self, example: Example, text: str) -> float | None:
        """Score a completion's text in [0, 1]; None where the task cannot judge."""
        ...


@runtime_checkable
class Choosing(Protocol):
    """A task whose evaluation compares given completions by their log-probs, and has none written."""

    def choices(self, example: Example) -> Sequence[str]:
        """The completions to compare; one alone is a text whose likelihood is measured."""
        ...

    def pick(self, example: Example, logprobs: Sequence[float]) -> int:
        """Choose by the log-prob of each as a whole; what is picked is verified like any completion."""
        ...


@runtime_checkable
class Detailed(Protocol):
    """A task whose evaluation has more to say of a completion than its score."""

    def details(self, example: Example, text: str) -> Mapping[str, tuple[float, float]]:
        """Points, and how many there were to get, by the name of a figure: sums over all completions are divided."""
        ...


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
    finished: Callable[[Rollout], None] = lambda rollout: None
    """To be told of every rollout that will be handed over as it is: its judge may begin with it."""
    team: Team = field(default_factory=Solo)
    """Who writes: what an environment says is asked for once, by one of them."""
    another: Callable[[Prompt, int], Prompt] = _none_other
    """Draws a train prompt of the same task, by a seed alone."""
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


@runtime_checkable
class Objective(Protocol):
    """What to learn from a scored token."""

    @property
    def needs(self) -> Needs:
        """What the teacher, the source and the task must provide."""
        ...

    def advantages(self, completions: Completions) -> Advantages:
        """Per-token advantages, float32 [B, T], or several of them by names; detached, 0 where masked."""
        ...

    def loss(self, tokens: Tokens) -> Tensor:
        """Loss of each token, [N]; the learner sums it and divides by the step's trained tokens."""
        ...


@runtime_checkable
class TokenWeight(Protocol):
    """How much of an objective's loss each token counts."""

    @property
    def needs(self) -> Needs:
        """What the teacher, the source and the learner must provide for it."""
        ...

    def weigh(self, completions: Completions) -> Tensor:
        """Factors of the tokens' losses, float32 [B, T], finite and detached; the sum is divided by all tokens as ever.

        A token's depends on its own sequence alone: of the student of now a rank has only what it trains itself.
        """
        ...


@runtime_checkable
class Judging(Protocol):
    """An objective that can compare the teacher with the student of now, and not only with the one that sampled."""

    def judging_now(self) -> Objective:
        """Decide so where it is left to the run: what a run asks for whose samples are stale (`devices.ahead`)."""
        ...


@runtime_checkable
class Devices(Protocol):
    """Settings of where a run computes."""

    @property
    def sharing(self) -> int:
        """How many of its processes share the cores of a machine."""
        ...

    @property
    def ahead(self) -> int:
        """Steps that engines write ahead of the learner; 0: they take turns."""
        ...

    @property
    def revives(self) -> int:
        """Times that an engine in this process that fails is started again for one request."""
        ...

    @property
    def apart(self) -> EngineProcesses | None:
        """Settings of engines in processes of their own; None: whoever asks one has it in its own process."""
        ...

    def writers(self, team: Team) -> Team | None:
        """Those of a team who start engines and ask them, as this process sees them; None: it is not among them.

        All of them, the very object, or the first one, which hands the others what it is answered.
        """
        ...

    def start(self, job: Job) -> Any:
        """Have a job carried out, in this process or in others, each of which then joins; its result or error."""
        ...

    def join(self) -> AbstractContextManager[Team]:
        """Meet the processes that compute it; those of a run are left when the block ends."""
        ...


@runtime_checkable
class ModelSource(Protocol):
    """A checkpoint that ships, or is made or converted on first use and cached."""

    def path(self) -> str:
        """Return a folder in Hugging Face layout, making it first if it is not there yet."""
        ...
