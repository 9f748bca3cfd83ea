"""Everyone who has a say on a rollout: the teacher, a reference model where there is one, and the task's verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from math import isnan
from types import MappingProxyType
from typing import Any

from torch import Tensor

from opd.batch import dealt
from opd.data.prompts import PromptStream
from opd.devices.shortage import during
from opd.devices.team import Solo, Team, spread
from opd.early import Early
from opd.needs import ALTERNATIVES, Needs
from opd.teachers.mark import marks_of
from opd.teaching import Mark, Scorer
from opd.tensors import each
from opd.text.chat import decode
from opd.types import ROUNDING, Judgement, PartError, Rollout, Scored, UserError


@dataclass(frozen=True)
class Judges:
    """The judges of a run, and what is asked of them."""

    teacher: Scorer
    reference: Scorer | None
    data: PromptStream
    tokenizer: Any
    needs: Needs
    team: Team = field(default_factory=Solo)
    """Each rank scores what it trains."""
    steps: int = 1
    """Optimizer steps that a step's rollouts are dealt out to."""
    early: Early | None = None
    """Has the teacher begin with what is finished while the rest is written; None: it is asked when all is."""

    @property
    def models(self) -> Mapping[str, Scorer]:
        """Those that are models, by their names in the config."""
        return {"teacher": self.teacher} | ({"reference": self.reference} if self.reference else {})

    def marks(self) -> Mapping[str, Mark]:
        """What tells those that lie elsewhere from other models."""
        return marks_of(self.models)

    def score(self, rollouts: Sequence[Rollout], alternatives: int = 0) -> list[Scored]:
        """Let the models score every token.

        `alternatives`: so many of the teacher's likeliest tokens are asked for too, for people to see. An objective
        that learns from the likeliest tokens gets its own number of them whatever this is.
        """
        twice = self.needs.student_top_k and not self.needs.distribution  # a server would have to be asked for them
        asked = replace(self.needs, top_k=self.needs.top_k or (0 if twice else alternatives))
        begun = self.early.begun(rollouts, asked) if self.early else {}
        judged = scored_by(self.teacher, rollouts, asked, self.team, self.steps, begun)
        if self.reference is None or not self.needs.reference:
            return [Scored(r, j) for r, j in zip(rollouts, judged, strict=True)]
        with during("reference"):
            second = scored_by(self.reference, rollouts, Needs(logprobs=True), self.team, self.steps)
        return [Scored(r, j, k) for r, j, k in zip(rollouts, judged, second, strict=True)]

    def verify(self, scored: Sequence[Scored], short: bool = False) -> list[Scored]:
        """Add what the environment, or else the verifier, says of the completion's text.

        `short`: what is cut was meant to be, and nothing is said of it.

        Raises:
            UserError: the objective needs a reward, and a task gives none.
        """

        def judged(part: Sequence[Scored]) -> list[float | None]:
            return [None if short and s.rollout.truncated else self._reward(s.rollout) for s in part]

        rewards = spread(self.team, scored, judged)
        out = [replace(s, reward=reward) for s, reward in zip(scored, rewards, strict=True)]
        for s in out:
            if s.reward is None and self.needs.rewards:
                raise UserError(no_verifier(s.rollout.prompt.example.task))
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


def no_verifier(task: str) -> str:
    """What is said of a task that cannot judge, where an objective learns from rewards."""
    return (
        f"data.tasks.{task}: it has no verifier, and the objective learns from rewards; choose a task that has one, "
        "such as data=arithmetic"
    )


def scored_by(
    scorer: Scorer, rollouts: Sequence[Rollout], needs: Needs, team: Team, steps: int = 1,
    begun: Mapping[int, Future[Judgement]] = MappingProxyType({}),
) -> list[Judgement]:  # fmt: skip
    """What a model says of every rollout, each judged by the rank that would train it in one of `steps` steps.

    All ranks have all log-probs and spans, and of the likeliest tokens as many as are shown to people; the rest, of
    which distributions are made, stays where it was made. What some rank has `begun` with, by its place, that one
    waits for, and all have all of it.
    """
    with during("score"):
        others = {i for places in team.gather(set(begun)) for i in places}
        owners = dealt(rollouts, steps, team.size) if team.size > 1 else [0] * len(rollouts)
        mine = [i for i, owner in enumerate(owners) if owner == team.rank and i not in others]
        # An error ends its rank at once: the others are in the middle of gathering layers, and could not be told.
        asked = judged_by(scorer, [rollouts[i] for i in mine], needs) if mine or not others else ()
        made = dict(zip(mine, asked, strict=True))
        early = {i: future.result() for i, future in begun.items()}
        sent = team.gather(early | {i: light(j) for i, j in made.items()}) if team.size > 1 else [early]
        every = {i: judgement for part in sent for i, judgement in part.items()} | made
        return [every[i] for i in range(len(rollouts))]


def judged_by(scorer: Scorer, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
    """What a teacher says, of which one of somebody's own may give anything; PartError where it is no log-prob each."""
    judged, name = list(scorer.score(rollouts, needs)), f"{type(scorer).__name__}.score"
    if len(judged) != len(rollouts):
        raise PartError(
            f"teacher: {name} gave {len(judged)} judgements of {len(rollouts)} rollouts; one of each is due"
        )
    for rollout, judgement in zip(rollouts, judged, strict=True):
        said = judgement.logprobs if isinstance(judgement, Judgement) else judgement
        if not isinstance(said, Tensor) or said.shape != (len(rollout.tokens),):
            what = f"a tensor of {list(said.shape)}" if isinstance(said, Tensor) else f"a {type(said).__name__}"
            raise PartError(
                f"teacher: {name} gave {what} for the log-probs of {len(rollout.tokens)} tokens; allowed is "
                "a Judgement with one of each token"
            )
        if bool((said > ROUNDING).any()):
            raise PartError(
                f"teacher: {name} gave a log-prob of {float(said[said > ROUNDING][0]):.3g}; allowed are those of a "
                "probability, 0 or less: log q, not q, and not -log q"
            )
    return judged


def light(judgement: Judgement) -> Judgement:
    """What of a judgement is sent to the other ranks: copies, as a part of a tensor would take the whole along."""
    return replace(
        judgement,
        logprobs=judgement.logprobs.clone(),
        state=None,
        top_ids=each(_few, judgement.top_ids),
        top_logprobs=each(_few, judgement.top_logprobs),
        asked_ids=None,
        asked_logprobs=None,
        spans=each(Tensor.clone, judgement.spans),
    )


def _few(top: Tensor) -> Tensor:
    return top[:, :ALTERNATIVES].clone()


def silent(scored: Scored) -> bool:
    """Whether the teacher says nothing at all of a completion that the student wrote."""
    unknown = scored.teacher.spans is None and bool(scored.teacher.logprobs.isnan().all())
    return bool(scored.rollout.tokens) and unknown and not all(map(isnan, scored.rollout.logprobs))
