"""Several sources, each with a share of the prompts: GKD's lambda is the student's share (Agarwal et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from opd.hints import among, shown
from opd.seeds import derive
from opd.types import Prompt, Rollout, Sampling
from opd.writing import Desk, Giving, Repeating, Source, Writer


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Deals a step's prompts out to its parts, anew in every step; a part of share 0 is not started."""

    parts: Mapping[str, Any]
    """Sources by a name of one's own, which becomes their rollouts' `origin`."""
    shares: Mapping[str, Annotated[float, Field(ge=0)]]
    """Each part's share of the prompts, in any unit: its part of their sum counts, so that all are set together."""

    def __post_init__(self) -> None:
        """Refuse parts that are no sources, and shares that do not match them."""
        for name, part in self.parts.items():
            if not isinstance(part, Source):
                raise ValueError(f"parts.{name}={shown(part)}: allowed is a mapping whose _target_ is a source")
        for name in self.shares:
            if name not in self.parts:
                raise ValueError(f"shares.{name}={self.shares[name]:g}: no such part{among(name, list(self.parts))}")
        for name in self.parts:
            if name not in self.shares:
                raise ValueError(
                    f"shares={dict(self.shares)}: part {name} has no share; give it one, 0 to leave it out"
                )
        if sum(self.shares.values()) <= 0:
            raise ValueError(f"shares={dict(self.shares)}: allowed is more than 0 in sum")

    @property
    def used(self) -> Mapping[str, Source]:
        """The parts that have a share."""
        return {name: part for name, part in self.parts.items() if self.shares[name] > 0}

    @property
    def deals(self) -> bool:
        """Whether who writes depends on which prompts are asked for together."""
        return len(self.used) > 1

    @property
    def dealing(self) -> str:
        """What share of the prompts each part gets."""
        return ", ".join(f"{self.shares[name] / sum(self.shares.values()):.0%} {name}" for name in self.used)

    @property
    def remark(self) -> str:
        """What is said where shares read as parts of 1 and are not: one alone was set (`shares.student=0.9`)."""
        counts = all(share % 1 == 0 for share in self.shares.values())
        if len(self.used) == 1 or counts or max(self.shares.values()) > 1 or abs(sum(self.shares.values()) - 1) < 1e-6:
            return ""
        return (
            f"source: {self.dealing} of the prompts, as its shares come to {sum(self.shares.values()):g} and not to 1"
        )

    @property
    def policy(self) -> bool:
        """Whether all tokens are the student's own: where they are in every part that has a share."""
        return all(part.policy for part in self.used.values())

    @property
    def origins(self) -> frozenset[str]:
        """Names of the parts that have a share."""
        return frozenset(self.used)

    @property
    def repeats(self) -> bool:
        """Whether each part that has a share has one completion of a prompt alone."""
        return all(isinstance(part, Repeating) and part.repeats for part in self.used.values())

    def start(self, desk: Desk) -> Writer:
        """Start every part that has a share."""
        return MixedWriter(
            {name: part.start(desk) for name, part in self.used.items()},
            [self.shares[name] for name in self.used],
        )


@dataclass(frozen=True)
class MixedWriter:
    """Started parts."""

    parts: Mapping[str, Writer]
    shares: Sequence[float]
    """Of the parts, in their order."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Let each prompt be completed `n` times by one of the parts."""
        dealt = deal(len(prompts), self.shares, derive(sampling.seed, "parts"))
        done: dict[int, list[Rollout]] = {}
        for (name, part), places in zip(self.parts.items(), dealt, strict=True):
            if not places:
                continue
            seed = derive(sampling.seed, "part", name)
            rollouts = part.sample([prompts[i] for i in places], replace(sampling, seed=seed))
            for k, i in enumerate(places):
                own = rollouts[k * sampling.n : (k + 1) * sampling.n]
                done[i] = [replace(r, origin=name) for r in own]
        return [rollout for i in range(len(prompts)) for rollout in done[i]]

    def given(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Rollout]:
        """The completions that the data has, all of which may be dealt; see `opd.writing.Giving`."""
        giving = [part for part in self.parts.values() if isinstance(part, Giving)]
        for prompt in prompts if giving else ():
            for part in giving:
                yield from part.given([prompt], sampling)


def deal(count: int, shares: Sequence[float], seed: int) -> list[list[int]]:
    """Deal places 0 to `count` - 1 out by shares, in any unit, each part's in ascending order.

    A part gets its exact share rounded down or up, at random so that the share is exact on average: one number in
    [0, 1) shifts all the borders between the parts (systematic sampling).
    """
    rng = np.random.default_rng(seed)
    ends = np.cumsum(shares)
    borders = np.append(0.0, ends / ends[-1] * count)
    first = np.floor(borders + rng.random()).astype(int).tolist()
    order = rng.permutation(count)
    return [sorted(order[a:b].tolist()) for a, b in pairwise(first)]
