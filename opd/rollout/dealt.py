"""One engine on each rank: every call is dealt out to all of them, and all have all of its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opd.batch import deal
from opd.devices.team import Team, each_rank
from opd.rollout.arrays import Arrays, arrays_to_rollouts, rollouts_to_arrays
from opd.rollout.sleep import rest
from opd.stream import telling
from opd.types import Prompt, Rollout, RunError, Sampling, TokenPair, Weights
from opd.writing import Sampler


def dealt(engine: Sampler, team: Team) -> Sampler:
    """An engine whose calls the ranks of a team share; itself where there is one."""
    if team.size == 1:
        return engine
    return DealtMixing(engine, team) if hasattr(engine, "sample_mixed") else Dealt(engine, team)


@dataclass(frozen=True)
class Dealt:
    """Where a request is drawn changes nothing of it: its seed comes from its place in the whole call."""

    engine: Any
    """This rank's own."""
    team: Team

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `n` completions per prompt; samples of one prompt stay together, as they share what is read of it."""
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        return self._drawn(owners, sampling, lambda places, drawn: self.engine.sample(_at(owners, places), drawn))

    def telling(
        self, prompts: Sequence[Prompt], sampling: Sampling, finished: Callable[[Rollout], None]
    ) -> list[Rollout]:
        """Draw the same; this rank is told of its own part. See `opd.stream.Telling`."""
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        return self._drawn(
            owners, sampling, lambda places, drawn: telling(self.engine, _at(owners, places), drawn, finished)
        )

    def _drawn(
        self,
        owners: Sequence[Prompt],
        sampling: Sampling,
        draw: Callable[[Sequence[int], Sampling], Sequence[Rollout]],
    ) -> list[Rollout]:
        """Let each rank draw its part of the requests, one of each of `owners`."""
        team, given = self.team, sampling.places or range(len(owners))
        parts = [range(len(owners) * k // team.size, len(owners) * (k + 1) // team.size) for k in range(team.size)]

        def mine() -> Arrays:
            places = parts[team.rank]
            return rollouts_to_arrays(
                draw(places, replace(sampling, n=1, places=tuple(_at(given, places)))) if places else ()
            )

        everyone = zip(each_rank(team, mine), parts, strict=True)
        return [r for sent, places in everyone for r in arrays_to_rollouts(sent, _at(owners, places))]

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        """Score given completions, each rank about as many tokens."""
        ranks = deal([len(prompt) + len(completion) for prompt, completion in sequences], 1, self.team.size)
        mine = [i for i, rank in enumerate(ranks) if rank == self.team.rank]

        def score() -> dict[int, list[float]]:
            return dict(zip(mine, self.engine.logprobs(_at(sequences, mine)), strict=True)) if mine else {}

        found = {i: row for part in each_rank(self.team, score) for i, row in part.items()}
        return [found[i] for i in range(len(sequences))]

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights of each rank's engine."""
        self.engine.load_weights(weights, version)

    def rest(self, keep: bool) -> None:
        """Have each rank's engine sleep, where it can."""
        rest(self.engine, keep=keep)

    def close(self) -> None:
        """Free this rank's."""
        self.engine.close()


@dataclass(frozen=True)
class DealtMixing(Dealt):
    """Engines that can draw together with another one's model."""

    def sample_mixed(
        self,
        other: Dealt,
        other_prompts: Sequence[Sequence[int]],
        alpha: float,
        prompts: Sequence[Prompt],
        sampling: Sampling,
    ) -> list[Rollout]:
        """Draw as `sample` does, each rank with its own two engines."""
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        shown = [ids for ids in other_prompts for _ in range(sampling.n)]

        def draw(places: Sequence[int], drawn: Sampling) -> Sequence[Rollout]:
            mixed: Sequence[Rollout] = self.engine.sample_mixed(
                other.engine, _at(shown, places), alpha, _at(owners, places), drawn
            )
            return mixed

        return self._drawn(owners, sampling, draw)


def same(rollouts: list[Rollout], team: Team) -> list[Rollout]:
    """The rollouts, after a look at whether all ranks have the same.

    Raises:
        RunError: a source, or a task that answers, draws on something that is not the same everywhere.
    """
    told = hashlib.blake2b(b"".join(array.tobytes() for array in rollouts_to_arrays(rollouts).values())).digest()
    if len(set(team.gather(told))) > 1:
        raise RunError(
            "the ranks' rollouts are not the same: what a source or a task's reply draws must depend on its seed and "
            "on what it is given alone; mend it, or use devices=one"
        )
    return rollouts


def _at(items: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [items[place] for place in places]
