"""A source: who writes the completions that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from opd.types import Prompt, Rollout, Sampling
from opd.writing import Desk


@dataclass(frozen=True)
class Starter:
    """Settings of a source: the student writes, and only how it begins is trained."""

    tokens: Annotated[int, Field(ge=1)] = 16
    """Tokens of each completion that are trained."""

    @property
    def policy(self) -> bool:
        """Whether all trained tokens are the student's own, with log mu: what a policy gradient needs."""
        return True

    @property
    def origins(self) -> frozenset[str]:
        """What its rollouts may have as `origin`."""
        return frozenset({"student"})

    def start(self, desk: Desk) -> StarterWriter:
        """Take the run's engine; `desk` has the teacher's, the tokenizer and the tasks as well."""
        return StarterWriter(self.tokens, desk)


@dataclass(frozen=True)
class StarterWriter:
    """A started one."""

    tokens: int
    desk: Desk

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Write `n` completions of each prompt, in prompt order; what is drawn depends on `sampling.seed` alone."""
        written = self.desk.engine.sample(prompts, sampling)
        return [replace(r, trained=tuple(i < self.tokens for i in range(len(r.tokens)))) for r in written]
