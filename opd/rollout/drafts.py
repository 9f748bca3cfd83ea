"""The rollouts of each step, in turn with the learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from opd.rollout.sleep import rest
from opd.teaching import Stateful
from opd.types import Prompt, Rollout, Sampling, Weights
from opd.writing import Sampler, Writer

AHEAD = "ahead"
"""What is written and not yet learned from, in a checkpoint: the name of its file."""
Plan = Callable[[int], tuple[Sequence[Prompt], Sampling]]
"""What a step, counted from 0, is to be written of, and how."""


class Drafts(Protocol):
    """What is written for the learner."""

    @property
    def stale(self) -> bool:
        """Whether the rollouts that were taken last are of older weights than the learner's."""
        ...

    @property
    def kept(self) -> Mapping[str, Stateful]:
        """What belongs into a run's checkpoints, by its name there."""
        ...

    def take(self, step: int) -> list[Rollout]:
        """The rollouts of a step."""
        ...

    def push(self, weights: Weights, version: int) -> None:
        """Hand the engine the weights that `version` steps have made."""
        ...

    def settle(self) -> None:
        """Wait until the engine has done all that it was asked for, and has the newest weights."""
        ...


@dataclass(frozen=True)
class InTurn:
    """Writes when it is asked."""

    source: Writer
    engine: Sampler
    plan: Plan
    stale: bool = False

    @property
    def kept(self) -> Mapping[str, Stateful]:
        """Nothing: all that is written has been learned from."""
        return {}

    def take(self, step: int) -> list[Rollout]:
        """Write the rollouts of a step; the engine is next asked when it has been handed what they have taught."""
        rollouts = self.source.sample(*self.plan(step))
        rest(self.engine, keep=False)
        return rollouts

    def push(self, weights: Weights, version: int) -> None:
        """Replace the engine's weights."""
        self.engine.load_weights(weights, version)

    def settle(self) -> None:
        """Nothing is ever left to do."""
