"""What a student wrote before and after training, and its teacher, with what the teacher finds of every token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from opd.called import called
from opd.commands.subject import Subject
from opd.config.settings import Config
from opd.console.beside import Answer, mean
from opd.data.prompts import PromptStream
from opd.devices.team import Solo
from opd.judges import scored_by
from opd.models.facts import read_facts
from opd.needs import Needs
from opd.parts import start_teacher
from opd.teaching import Pupil, Scorer
from opd.text.chat import decode
from opd.text.speech import pieces
from opd.types import Pretrained, Rollout, UserError

Written = Sequence[tuple[str, Rollout]]
"""Who has written what."""


def judge_of(subject: Subject, data: PromptStream, tokenizer: Any, stack: ExitStack) -> Scorer:
    """The run's teacher, started; UserError where it has nothing to say of the student's tokens."""
    cfg = subject.config
    if not cfg.teacher.provides.logprobs:
        why = "reads in tokens of its own" if cfg.teacher.provides.spans else "has no log-probs"
        raise UserError(
            f"--compare: teacher={called('teacher', cfg.teacher)} {why}, and cannot be asked about tokens; leave it out"
        )
    pupil = Pupil(tokenizer, read_facts(subject.base).vocabulary, subject.base, longest=cfg.longest, chat=data.chat)
    return start_teacher(cfg.teacher, pupil, data, stack)


def model_of(cfg: Config, told: Callable[[str], None]) -> Pretrained | None:
    """The teacher's checkpoint; None, with the reason told, where no engine can write as the teacher."""
    found = cfg.teacher.checkpoint()
    if found is None:
        name = called("teacher", cfg.teacher)
        told(f"the teacher does not write: teacher={name} has no checkpoint that an engine could sample")
    return found


def answers(tokenizer: Any, teacher: Scorer | None, written: Written) -> list[Answer]:
    """The same for people, judged by the teacher where there is one."""
    rollouts = [r for _, r in written]
    judged = scored_by(teacher, rollouts, Needs(logprobs=True), Solo()) if teacher else None
    found = []
    for i, (name, r) in enumerate(written):
        gaps = None
        if judged is not None:
            gaps = [mu - q for mu, q in zip(r.logprobs, judged[i].logprobs.tolist(), strict=True)]
        found.append(
            Answer(
                name, decode(tokenizer, r.tokens), len(r.tokens), r.truncated,
                None if gaps is None else pieces(tokenizer, r.tokens, gaps), mean(gaps) if gaps else None,
            )
        )  # fmt: skip
    return found


def plain(answer: Answer) -> dict[str, Any]:
    """An answer in values that JSON knows; of a token that the teacher says nothing of null."""
    told = {"model": answer.model, "completion": answer.text, "tokens": answer.tokens, "truncated": answer.truncated}
    if answer.pieces is None:
        return told
    shown = [[piece, gap if math.isfinite(gap) else None] for piece, gap in answer.pieces]
    return told | {"disagreement": answer.disagreement, "pieces": shown}
