"""Leaves out of training what a verifier finds nothing to learn from: groups that all fail or all succeed, and others.

Source: dynamic sampling of Yu et al., "DAPO", 2025 (arXiv 2503.14476), section 3.2: prompts whose samples all have the
same reward have no advantage under GRPO, and water the step down; without them a step's tokens are those of prompts at
the edge of what the student can do. Claim: fewer steps to the same accuracy, more samples a step. There others are
sampled in their place until a step is full, however long that takes; here in up to `redraws` further rounds, and what
is still left out then makes the step smaller. Left open by the paper, and chosen: the others are drawn at random from
the train prompts of the same task, by the seed of the step, so that a step stays a function of the seed, the weights
and its number, a run goes on exactly, and a mixture of tasks stays as it is. A step may so hold a prompt twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum, isfinite
from typing import Annotated

from pydantic import Field

from opd.seeds import derive
from opd.sources.around import Around, AroundWriter, rounds
from opd.sources.parts import saying
from opd.types import Prompt, Rollout, Sampling
from opd.writing import Desk, Writer


@dataclass(frozen=True, kw_only=True)
class Filtered(Around):
    """Has another source write, and trains no token of what the verifier's rewards rule out.

    What is left out is written and scored like the rest, has no part in the loss or its denominator, and is counted
    (`rollout/left_out`).
    """

    spread: Annotated[float, Field(ge=0)] | None = 0.0
    """Leaves out the samples of a prompt whose rewards differ by no more than this; one sample alone has no spread, and
    is not left out for it, nor is the completion that a dataset gives, however often. Null: none for that."""
    lowest: float | None = None
    """Leaves out the samples of a prompt whose mean reward is below this: what the writer cannot do yet."""
    highest: float | None = None
    """Leaves out the samples of a prompt whose mean reward is above this: what it can do already."""
    reward: float | None = None
    """Leaves out single completions with a reward below this. What is then left of a student's samples is no sample of
    its policy, and not for objectives that need one."""
    redraws: Annotated[int, Field(ge=0, le=1000)] = 0
    """Rounds in which other prompts are taken in the place of those of which nothing is left. What was written for
    these is thrown away, and counted in what the run has cost."""

    def __post_init__(self) -> None:
        """Refuse what is no source, and what would leave nothing."""
        super().__post_init__()
        if self.lowest is not None and self.highest is not None and self.lowest > self.highest:
            raise ValueError(f"lowest={self.lowest:g}: allowed is at most highest={self.highest:g}")
        if self.redraws and (inner := saying(self.source, "deals")):
            raise ValueError(
                f"redraws={self.redraws}: source={inner} would deal the prompts that are taken instead out anew, and "
                "parts of which little is left out would get more than their shares; allowed is 0, or the reverse, "
                f"this as a part of {inner}"
            )

    verifies = needs_ends = True

    @property
    def picks(self) -> bool:
        """Whether it takes other prompts than those that it is given."""
        return self.redraws > 0

    @property
    def policy(self) -> bool:
        """Whether all tokens are the student's own, and chosen by prompts alone."""
        return bool(self.source.policy) and self.reward is None

    def start(self, desk: Desk) -> Writer:
        """Start who writes. What is written is changed before it is handed over."""
        return FilteredWriter(self, self.source.start(replace(desk, finished=lambda rollout: None)), desk)


@dataclass(frozen=True)
class FilteredWriter(AroundWriter):
    """A started source, and what verifies its work."""

    settings: Filtered

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Write `n` completions of each prompt, or of others in its place, and have what is left out train nothing.

        Raises:
            UserError: a task has no verifier.
        """
        groups = self._written(prompts, sampling)
        for round_ in rounds(self.settings.redraws, sampling):
            lost = [i for i, group in enumerate(groups) if not any(any(r.mask) for r in group)]
            if not lost:
                break
            seed = derive(sampling.seed, "redraw", round_)
            others = [self.desk.another(prompts[i], derive(seed, i)) for i in lost]
            again = self._written(others, replace(sampling, seed=seed))
            for i, group in zip(lost, again, strict=True):
                groups[i] = instead(group, groups[i])
        return [rollout for group in groups for rollout in group]

    def _written(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Rollout]]:
        """The completions of each prompt with their rewards, those masked that are left out."""
        written = self.source.sample(prompts, sampling)
        rewards = self.rewards(written)
        groups = []
        for begin in range(0, len(written), sampling.n):
            group = slice(begin, begin + sampling.n)
            kept = taken(self.settings, rewards[group], drawn=not any(map(given, written[group])))
            groups.append([
                replace(r, reward=reward, trained=r.trained if keep else (False,) * len(r.tokens))
                for r, reward, keep in zip(written[group], rewards[group], kept, strict=True)
            ])  # fmt: skip
        return groups


def instead(group: Sequence[Rollout], lost: Sequence[Rollout]) -> list[Rollout]:
    """Completions that take the place of others, whose cost goes with the first of them."""
    thrown = [(who, len(r.prompt.tokens), len(r.tokens)) for r in lost for who in r.writers]
    before = [beside for r in lost for beside in r.beside]
    tries = 1 + lost[0].tries
    first, *rest = (replace(r, tries=r.tries + tries) for r in group)
    return [replace(first, beside=(*before, *thrown, *first.beside)), *rest]


def given(rollout: Rollout) -> bool:
    """Whether nobody drew it: a dataset's, which is the same each time."""
    return bool(rollout.tokens) and not rollout.writers and not any(map(isfinite, rollout.logprobs))


def taken(settings: Filtered, rewards: Sequence[float], drawn: bool = True) -> list[bool]:
    """Which samples of one prompt are trained, by their rewards; of what was not `drawn` all are one sample."""
    mean, several = fsum(rewards) / len(rewards), drawn and len(rewards) > 1
    alike = settings.spread is not None and several and max(rewards) - min(rewards) <= settings.spread
    low = settings.lowest is not None and mean < settings.lowest
    high = settings.highest is not None and mean > settings.highest
    return [
        not (alike or low or high or (settings.reward is not None and reward < settings.reward)) for reward in rewards
    ]
