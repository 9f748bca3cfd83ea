"""Everyone who has a say on a rollout: the teacher, a reference model where there is one, and the task's verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

from opd.data.prompts import PromptStream
from opd.needs import Needs
from opd.protocols import Scorer
from opd.text.chat import decode
from opd.types import Rollout, Scored, UserError


@dataclass(frozen=True)
class Judges:
    """The judges of a run, and what is asked of them."""

    teacher: Scorer
    reference: Scorer | None
    data: PromptStream
    tokenizer: Any
    needs: Needs

    @property
    def models(self) -> Mapping[str, Scorer]:
        """Those that are models, by their names in the config."""
        return {"teacher": self.teacher} | ({"reference": self.reference} if self.reference else {})

    def score(self, rollouts: Sequence[Rollout], alternatives: int = 0) -> list[Scored]:
        """Let the models score every token.

        `alternatives`: so many of the teacher's likeliest tokens are asked for too, for people to see. An objective
        that learns from the likeliest tokens gets its own number of them whatever this is.
        """
        judged = self.teacher.score(rollouts, replace(self.needs, top_k=self.needs.top_k or alternatives))
        if self.reference is None or not self.needs.reference:
            return [Scored(r, j) for r, j in zip(rollouts, judged, strict=True)]
        second = self.reference.score(rollouts, Needs(logprobs=True))
        return [Scored(r, j, k) for r, j, k in zip(rollouts, judged, second, strict=True)]

    def verify(self, scored: Sequence[Scored]) -> list[Scored]:
        """Add what the environment, or else the verifier, says of the completion's text.

        Raises:
            UserError: the objective needs a reward, and a task gives none.
        """
        out = [replace(s, reward=self._reward(s.rollout)) for s in scored]
        for s in out:
            if s.reward is None and self.needs.rewards:
                task = s.rollout.prompt.example.task
                raise UserError(
                    f"data.tasks.{task}: it has no verifier, and the objective learns from rewards; "
                    "choose a task that has one, such as data=arithmetic"
                )
        return out

    def check(self, scored: Sequence[Scored]) -> None:
        """Raise UserError where the teacher says nothing of what the student writes, and the objective needs it."""
        if self.needs.policy and self.needs.logprobs and any(silent(s) for s in scored):
            raise UserError(
                "teacher: it has no log-probs of what the student wrote, and the objective learns from them; a "
                "read-only cache only knows the dataset's completions: objective=sft or top_k, with source=dataset"
            )

    def _reward(self, rollout: Rollout) -> float | None:
        if rollout.reward is not None:
            return rollout.reward
        return self.data.verify(rollout.prompt, decode(self.tokenizer, rollout.tokens))


def silent(scored: Scored) -> bool:
    """Whether the teacher says nothing at all of a completion that the student wrote."""
    unknown = scored.teacher.spans is None and bool(scored.teacher.logprobs.isnan().all())
    return bool(scored.rollout.tokens) and unknown and not all(map(isnan, scored.rollout.logprobs))
