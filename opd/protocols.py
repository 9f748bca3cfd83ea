"""The parts of a run, as the loop and each other see them. Imports only the values that they pass on.

Each is named by the `_target_` of its YAML: a frozen dataclass whose fields are its config. Heavy ones load in
`start()`, which returns the live object; the loop sees only the methods below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from opd.devices.launch import Job
from opd.devices.team import Team
from opd.needs import Needs
from opd.tensors import Advantages, Completions, Tokens
from opd.types import (
    Example,
    Split,
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
        """Decide so where it is left to the run: what a run asks for whose samples are stale.

        By `devices.ahead`, by the source, or from the second of several optimizer steps on.
        """
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
