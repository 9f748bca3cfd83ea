"""The teacher writes: off-policy, as in sequence-level distillation (Kim and Rush, 2016; `seq_kd` of GKD)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from opd.protocols import ModelSource
from opd.types import Prompt, Rollout, Sampling, UserError
from opd.writing import Desk, Sampler, Writer

NAN = float("nan")


@dataclass(frozen=True)
class TeacherSource:
    """Every completion is sampled from the teacher, by an engine of its own.

    With `objective=sft` this is sequence-level distillation, with a divergence it is supervised distillation.
    """

    model: str | ModelSource | None = None
    """Who writes instead of the run's teacher, such as one specialist of several (`source=by_task`); it must share the
    student's vocabulary, and reads the student's prompts as they are. Null: the teacher."""

    policy = False
    origins = frozenset({"teacher"})

    def start(self, desk: Desk) -> Writer:
        """Start the teacher's engine, or the other model's; UserError where no other model can write."""
        if self.model is None:
            return TeacherWriter(desk, desk.teacher_engine())
        if desk.model_engine is None:
            raise UserError(f"source.model={self.model}: no other model can write here; allowed is null")
        path = self.model if isinstance(self.model, str) else self.model.path()
        as_given = replace(desk, read=lambda prompts: [p.tokens for p in prompts])
        return TeacherWriter(as_given, desk.model_engine(path))


@dataclass(frozen=True)
class TeacherWriter:
    """Samples the teacher."""

    desk: Desk
    engine: Sampler

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `n` completions of each prompt, which the teacher is shown in its own way.

        It stops at the student's stop ids: the two share a vocabulary, and the student is to learn to write them.
        """
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        drawn = self.engine.sample(as_read(self.desk.read, prompts), sampling)
        known = [known_to_student(self.desk, rollout) for rollout in drawn]
        return [
            replace(r, prompt=prompt, logprobs=(NAN,) * len(r.tokens), origin="teacher", writers=("teacher",))
            for r, prompt in zip(known, owners, strict=True)
        ]


def as_read(read: Callable[[Sequence[Prompt]], list[Sequence[int]]], prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts with the ids that the teacher is shown, which `read` says."""
    return [Prompt(p.example, tuple(ids)) for p, ids in zip(prompts, read(prompts), strict=True)]


def known_to_student(desk: Desk, rollout: Rollout) -> Rollout:
    """Cut a rollout of the teacher's before the first token that the student does not have.

    Sibling models differ in padding rows and in some added tokens, which a teacher writes hardly ever.
    """
    size = len(desk.tokenizer)
    end = next((i for i, token in enumerate(rollout.tokens) if token >= size), None)
    if end is None:
        return rollout
    return replace(rollout, tokens=rollout.tokens[:end], logprobs=rollout.logprobs[:end], truncated=True)
