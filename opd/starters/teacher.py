"""A teacher: what it would have written, token by token, where the student wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs, Provides
from opd.teaching import Pupil, Scorer
from opd.types import Judgement, Pretrained, Rollout


@dataclass(frozen=True)
class Starter:
    """Settings of a teacher without a network: it counts which token follows which in a text."""

    text: str = "1+2=3;3+4=7;7-2=5;5+5=10"
    """What is counted."""
    smooth: Annotated[float, Field(gt=0)] = 0.1
    """Added to every count, so that nothing is impossible."""

    @property
    def provides(self) -> Provides:
        """What an objective can have of it: log-probs of the sampled tokens."""
        return Provides(logprobs=True)

    def checkpoint(self) -> Pretrained | None:
        """What an engine could sample it from: there is no model."""
        return None

    def start(self, pupil: Pupil) -> StarterScorer:
        """Count, in the student's tokens. A heavy teacher is loaded here."""
        counts = torch.full((pupil.size, pupil.size), self.smooth)
        for before, after in pairwise(pupil.tokenizer(self.text)["input_ids"]):
            counts[before, after] += 1
        return StarterScorer((counts / counts.sum(-1, keepdim=True)).log())


@dataclass
class StarterScorer(Scorer):
    """A started one. `Scorer` has the rest of what is asked of it, as a simple one answers."""

    table: Tensor
    """Log-prob of each token behind each, float32 [V, V]."""

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every token of every rollout."""
        return [self._judged(r) for r in rollouts]

    def _judged(self, rollout: Rollout) -> Judgement:
        before = [*rollout.prompt.tokens[-1:], *rollout.tokens][: len(rollout.tokens)]
        return Judgement(logprobs=self.table[before, list(rollout.tokens)])
