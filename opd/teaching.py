"""What a teacher is to the rest of a run: its settings, what it knows of the student, and the started one that scores.

As in `opd.protocols`, of which these are the part that is about judging what was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from opd.devices.team import Solo, Team
from opd.needs import Needs, Provides
from opd.types import Example, Judgement, Pretrained, Prompt, Reads, Rollout

if TYPE_CHECKING:
    from torch import Tensor


Mark = str | Sequence[float]
"""What tells a model that judges from others: a fingerprint of its files, or its log-probs of one text."""


@dataclass(frozen=True)
class Pupil:
    """What a teacher may know of the student."""

    tokenizer: Any
    """Its transformers tokenizer."""
    size: int
    """Columns of its output head, padding rows included."""
    model: Pretrained | None = None
    """What it started from; None where that is not known."""
    learner: Any = None
    """The live `opd.learner.student.Student`; None where none is being trained, as in `opd eval`."""
    longest: int = 0
    """Tokens of its longest prompt and completion together, as its own tokenizer counts them; 0: not known."""
    team: Team = field(default_factory=Solo)
    """Who computes the run."""
    chat: bool = False
    """Whether a chat template writes its prompts out."""


class Scorer(Protocol):
    """A started teacher. One that derives from this has only to `score`; the rest is then that of a simple one."""

    @property
    def shared(self) -> tuple[Tensor, Tensor] | None:
        """Columns (the student's, its own) that are the same token, for another tokenizer; None: the same columns."""
        return None

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every token of every rollout."""
        ...

    def logits(self, state: Tensor) -> Tensor:
        """Float32 logits [N, V] of states [N, S] that it handed over, at its temperature, without a graph.

        Only called where it provides `distribution`. Columns that the student does not have are cut off, unless
        `shared` says which are which.
        """
        raise AssertionError("logits() of a teacher that provides no distribution")

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt as this teacher is shown it; the student's."""
        return [p.tokens for p in prompts]

    def reads(self, rollouts: Sequence[Rollout]) -> list[Reads]:
        """What each of its models reads to judge these, of none: nothing; one model that is elsewhere."""
        return [Reads.of(rollouts, self.read([r.prompt for r in rollouts]))]

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """What a person should know of how it reads the student's tokens and prompts; empty where all is alike."""
        return []

    def close(self) -> None:
        """Free everything; calling it twice is fine."""
        return


@runtime_checkable
class Distant(Protocol):
    """A scorer that computes with devices that are not this run's: it can judge while the engine writes."""

    @property
    def place(self) -> str:
        """Where, for people."""
        ...


@runtime_checkable
class Marked(Protocol):
    """A scorer some of whose models have no files here that would tell them from others."""

    def marks(self) -> Mapping[str, Mark]:
        """What tells each of those, by what it is called among them; one that is alone goes by no name."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A scorer that learns (a moving average): what it holds belongs into a run's checkpoints."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that `load_state` goes on from; a scorer's are finite, or they are not saved."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from them."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A scorer that treats examples differently, and wants to see them before the first step."""

    def admit(self, examples: Iterable[Example]) -> None:
        """Raise UserError for the first example that it would not know what to do with."""
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """Settings of a teacher that knows before its weights are read whether it suits a student."""

    def check(self, pupil: Pupil) -> None:
        """Raise UserError for what `start` would refuse, as far as that shows without weights."""
        ...


@runtime_checkable
class Teacher(Protocol):
    """Settings of a teacher."""

    @property
    def provides(self) -> Provides:
        """What it can hand over; compared with the objective's `needs` before any weight is read."""
        ...

    def checkpoint(self) -> Pretrained | None:
        """What an engine could sample the teacher from; None where there is no such thing."""
        ...

    def start(self, pupil: Pupil) -> Scorer:
        """Load the teacher; raises UserError where it does not share the student's vocabulary."""
        ...


@runtime_checkable
class Composed(Protocol):
    """Settings of a teacher that is made of others."""

    @property
    def inner(self) -> Mapping[str, Teacher]:
        """Those of them that are loaded, by the settings that they stand in."""
        ...
