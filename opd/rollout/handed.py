"""What the first rank alone has, an engine or a source that writes with it: asked there, and answered to all.

`writers` are those of a team who ask engines, as `opd.protocols.Devices` says: all of them, or the first for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from opd.devices.team import Team, each_rank, first_rank
from opd.rollout.arrays import Arrays, arrays_to_rollouts, rollouts_to_arrays
from opd.types import Prompt, Rollout, Sampling, TokenPair, Weights
from opd.writing import Giving, Sampler, Writer

T = TypeVar("T")


def engine_of_all(start: Callable[[Team], Sampler], writers: Team | None, team: Team) -> Sampler:
    """The engine that all ranks of `team` ask together; `start` is called by the writers."""
    return start(team) if writers is team else HandedEngine(_made(start, writers, team), team)


def source_of_all(start: Callable[[Team], Writer], writers: Team | None, team: Team) -> Writer:
    """The source, likewise."""
    return start(team) if writers is team else HandedSource(_made(start, writers, team), team)


def own(part: Any) -> Any:
    """What this rank has of such a part for itself, without the others: on the first one all of it; elsewhere None."""
    return part.own if isinstance(part, HandedEngine | HandedSource) else part


@dataclass(frozen=True)
class HandedEngine:
    """An engine of the first rank; every method is called on all, in the same order."""

    own: Any
    """The engine itself; None on other ranks."""
    team: Team

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `n` completions per prompt; see `opd.writing.Sampler`."""
        return received(self.team, prompts, lambda: self.own.sample(prompts, sampling))

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        """Score given completions; see `opd.writing.Sampler`."""
        return first_rank(self.team, lambda: list(self.own.logprobs(sequences)))

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights, of which all ranks may have a part."""
        fed(self.team, weights, lambda whole: self.own.load_weights(whole, version))

    def close(self) -> None:
        """Free what this rank has."""
        if self.own is not None:
            self.own.close()


@dataclass(frozen=True)
class HandedSource:
    """A source of the first rank."""

    own: Any
    """The started source; None on other ranks."""
    team: Team

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Write `n` completions of each prompt; see `opd.writing.Writer`."""
        return received(self.team, prompts, lambda: self.own.sample(prompts, sampling))

    def given(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Rollout]:
        """What the data gives, where this rank has the source; see `opd.writing.Giving`."""
        return self.own.given(prompts, sampling) if isinstance(self.own, Giving) else iter(())


def received(team: Team, prompts: Sequence[Prompt], write: Callable[[], Sequence[Rollout]]) -> list[Rollout]:
    """What the first rank writes, as many completions of each prompt, on all ranks, each with its own prompts.

    Prompts that a source took in the place of some come along.
    """

    def owners(count: int) -> list[Prompt]:
        return [prompt for prompt in prompts for _ in range(count // max(1, len(prompts)))]

    def told() -> tuple[Arrays, dict[int, Prompt]]:
        rollouts = write()
        pairs = enumerate(zip(rollouts, owners(len(rollouts)), strict=True))
        return rollouts_to_arrays(rollouts), {i: r.prompt for i, (r, owner) in pairs if r.prompt is not owner}

    arrays, others = first_rank(team, told)
    return arrays_to_rollouts(arrays, [others.get(i, p) for i, p in enumerate(owners(len(arrays["version"])))])


def fed(team: Team, weights: Weights, feed: Callable[[Weights], None]) -> None:
    """Have the first rank feed weights to something; all ranks take them, as a part of each may be theirs.

    What goes wrong there is raised on all, when the others have taken all that they wait for.
    """

    def mine() -> None:
        left = iter(weights)
        try:
            if team.rank == 0:
                feed(left)
        finally:
            for _ in left:
                pass

    each_rank(team, mine)


def _made(make: Callable[[Team], T], writers: Team | None, team: Team) -> T | None:
    """What this rank makes as one of the writers; None where it is none. An error of one is raised on all."""
    made: list[T] = []

    def mine() -> None:
        if writers is not None:
            made.append(make(writers))

    each_rank(team, mine)
    return made[0] if made else None
