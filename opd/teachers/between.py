"""A teacher in between: from where the student began to another teacher, and nearer to that with every step.

Source: TOP-D, 2026 (arXiv 2607.04751): a teacher that is far away says little that the student can follow, one between
the two is never farther than the student has come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field

from opd.called import called
from opd.needs import Needs, Provides
from opd.teachers.local import WHOLE
from opd.teachers.routed import RoutedTeacher
from opd.teachers.several import WeightedScorer
from opd.teaching import Pupil, Teacher
from opd.types import Judgement, Pretrained, Rollout


@dataclass(frozen=True, kw_only=True)
class BetweenTeacher:
    """Settings of two teachers: `log q_a = (1 - a) log near + a log teacher - log Z`, normalised over the vocabulary.

    Chosen here: `a` rises in a straight line with the run's steps, and is one for all rollouts of a batch; where no
    student is trained (`opd eval`) it is the last one. Both teachers score every token, to the end.
    """

    teacher: Teacher
    """Where it goes to."""
    near: Teacher
    """Where it comes from: the reference of the paper, the student as it began."""
    begin: Annotated[float, Field(ge=0, le=1)] = 0.0
    """`a` before the first step."""
    end: Annotated[float, Field(ge=0, le=1)] = 1.0
    """`a` in the end; 1: the teacher itself."""
    steps: Annotated[int, Field(ge=1)]
    """Steps of the run from the one to the other, as those of the learning rate: whatever optimizer steps each of them
    takes, and be it none."""

    def __post_init__(self) -> None:
        """Refuse teachers without a distribution to normalise, and a way back."""
        for name, teacher in self.inner.items():
            if not teacher.provides.distribution or teacher.provides.spans:
                problem = "has another tokenizer" if teacher.provides.spans else "does not give its distribution"
                raise ValueError(
                    f"{name}={called('teacher', teacher)}: it {problem}; allowed is one in this process with the "
                    "student's tokenizer, such as teacher=local"
                )
        if self.begin > self.end:
            raise ValueError(f"begin={self.begin:g}: allowed is at most end={self.end:g}")

    @property
    def inner(self) -> Mapping[str, Teacher]:
        """The two."""
        return {"teacher": self.teacher, "near": self.near}

    @property
    def provides(self) -> Provides:
        """Log-probs of the sampled tokens, its whole distribution, and its likeliest tokens."""
        return Provides(logprobs=True, distribution=True, top_k=WHOLE)

    def checkpoint(self) -> Pretrained | None:
        """That of the teacher in the end; no model is the one in between."""
        places = [teacher.checkpoint() for teacher in self.inner.values()]  # models that are made are made now
        return places[0]

    def share(self, steps: int) -> float:
        """`a` after so many steps of the run."""
        return self.begin + (self.end - self.begin) * min(1.0, steps / self.steps)

    def start(self, pupil: Pupil) -> BetweenScorer:
        """Load both, a model that they have in common once; UserError where one has another vocabulary."""
        both = RoutedTeacher(teachers=self.inner, weights=dict.fromkeys(self.inner, 1.0)).start(pupil)
        assert isinstance(both, WeightedScorer)
        return BetweenScorer(both.scorers, both.vocabulary, both.shares, settings=self, pupil=pupil)


@dataclass
class BetweenScorer(WeightedScorer):
    """Two started teachers. What it hands over is judged by `a` as it was when it was scored."""

    settings: BetweenTeacher = field(kw_only=True)
    pupil: Pupil = field(kw_only=True)

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every token by both distributions together."""
        learner, s = self.pupil.learner, self.settings
        a = s.end if learner is None else s.share(learner.taken)
        self.shares = {"teacher": a, "near": 1.0 - a}
        judged = super().score(rollouts, Needs(logprobs=True, distribution=True))
        return [self._normalised(r, j, needs) for r, j in zip(rollouts, judged, strict=True)]

    def _normalised(self, rollout: Rollout, judgement: Judgement, needs: Needs) -> Judgement:
        """The same with log-probs that add up to 1, a chunk of positions after the other."""
        import torch

        from opd.models.heads import chunks

        assert judgement.state is not None
        state, tokens = judgement.state, torch.tensor(rollout.tokens, dtype=torch.int64)
        k = min(needs.top_k, self.vocabulary)
        logprobs, ids, values = [torch.zeros(0)], [torch.zeros(0, k).long()], [torch.zeros(0, k)]
        for c in chunks(len(tokens), torch.empty(self.vocabulary, 0, device=self._device())):
            log_q = self.logits(state[c].to(self._device())).log_softmax(-1)
            place = tokens[c].clamp(max=self.vocabulary - 1).to(log_q.device)
            logprobs.append(log_q.gather(-1, place[:, None])[:, 0].cpu())
            best = log_q.topk(k, dim=-1)
            ids.append(best.indices.cpu())
            values.append(best.values.cpu())
        known = tokens < self.vocabulary  # others have the floor of both
        return replace(
            judgement,
            logprobs=torch.where(known, torch.cat(logprobs), judgement.logprobs),
            state=state if needs.distribution else None,
            top_ids=torch.cat(ids) if k else None,
            top_logprobs=torch.cat(values) if k else None,
        )

    def _device(self) -> Any:
        """Where the heads are: with the learner's."""
        from opd.devices.compute import pick_device

        return pick_device("auto") if self.pupil.learner is None else self.pupil.learner.device
