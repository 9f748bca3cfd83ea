"""What sources have in common that wrap another one: whose tokens they are is the other's to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from opd.called import called
from opd.devices.team import spread
from opd.hints import shown
from opd.sources.student import StudentSource
from opd.text.chat import decode
from opd.text.verdict import verdict
from opd.types import Prompt, Rollout, Sampling, UserError
from opd.writing import Desk, Giving, Repeating, Source, Writer


@dataclass(frozen=True, kw_only=True)
class Around:
    """A source that has another one write."""

    source: Any = field(default_factory=StudentSource)
    """Who writes."""

    def __post_init__(self) -> None:
        """Refuse what is no source."""
        if not isinstance(self.source, Source):
            raise ValueError(f"source={shown(self.source)}: allowed is a mapping whose _target_ is a source")

    @property
    def policy(self) -> bool:
        """Whether all tokens are the student's own."""
        return bool(self.source.policy)

    @property
    def origins(self) -> frozenset[str]:
        """Those of who writes."""
        return frozenset(self.source.origins)

    @property
    def repeats(self) -> bool:
        """Whether who writes has one completion of each prompt alone."""
        return isinstance(self.source, Repeating) and self.source.repeats

    @property
    def used(self) -> dict[str, Source]:
        """What it is made of."""
        return {"source": self.source}


@dataclass(frozen=True)
class AroundWriter:
    """A started one."""

    settings: Any
    source: Writer
    desk: Desk

    def given(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Rollout]:
        """The completions that the data has, all of which may be trained; see `opd.writing.Giving`."""
        if isinstance(self.source, Giving):
            yield from self.source.given(prompts, sampling)

    def rewards(self, rollouts: Sequence[Rollout], otherwise: str = "") -> list[float]:
        """What verifiers say of completions, each asked by one of those who write.

        Raises:
            UserError: a task has no verifier; `otherwise` says what else there is than to choose one that has.
        """
        return spread(self.desk.team, rollouts, lambda part: [self._reward(r, otherwise) for r in part])

    def _reward(self, rollout: Rollout, otherwise: str) -> float:
        example, reward = rollout.prompt.example, rollout.reward
        if reward is None:
            reward = verdict(self.desk.task(example), example, decode(self.desk.tokenizer, rollout.tokens))
        if reward is None:
            raise UserError(
                f"data.tasks.{example.task}: it has no verifier, and source={called('source', self.settings)} goes by "
                f"rewards; choose a task that has one, such as data=arithmetic{otherwise}"
            )
        return reward


def rounds(redraws: int, sampling: Sampling) -> range:
    """In which other prompts are taken; one tells a trial what several would."""
    return range(min(redraws, 1) if sampling.trial else redraws)
