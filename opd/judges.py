"""Everyone who has a say on a rollout: the teacher, a reference model where there is one, and the task's verifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from opd.chat import decode
from opd.data.prompts import PromptStream
from opd.needs import Needs
from opd.protocols import Scorer
from opd.types import Rollout, Scored, UserError


@dataclass(frozen=True)
class Judges:
    """The judges of a run, and what is asked of them."""

    teacher: Scorer
    reference: Scorer | None
    data: PromptStream
    tokenizer: Any
    needs: Needs

    def score(self, rollouts: Sequence[Rollout]) -> list[Scored]:
        """Let the models score every token."""
        judged = self.teacher.score(rollouts, self.needs)
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

    def _reward(self, rollout: Rollout) -> float | None:
        if rollout.reward is not None:
            return rollout.reward
        return self.data.verify(rollout.prompt, decode(self.tokenizer, rollout.tokens))
