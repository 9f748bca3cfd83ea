"""The teacher as the writer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from opd.sources.teacher import TeacherSource
from opd.types import Sampling, UserError
from tests.sources.desks import STOP, TableEngine, make_desk, tables
from tests.tiny import char_tokenizer, prompts

TOKENIZER = char_tokenizer()
PROMPTS = prompts(TOKENIZER, ["1+1", "23-4", "5"])
SAMPLING = Sampling(max_tokens=6, n=2, stop=(STOP,), seed=3)


def test_the_teacher_writes_after_its_own_reading_and_the_rollout_keeps_the_students() -> None:
    student, teacher = tables()
    desk = make_desk(student, teacher, read=lambda given: [(40, *p.tokens) for p in given])
    written = TeacherSource().start(desk).sample(PROMPTS, SAMPLING)
    assert [p.tokens for p in teacher.shown] == [(40, *p.tokens) for p in PROMPTS for _ in range(2)]
    assert not student.shown
    assert all(r.prompt is p for r, p in zip(written, [p for p in PROMPTS for _ in range(2)], strict=True))
    assert {(r.origin, r.writers) for r in written} == {("teacher", ("teacher",))}
    assert all(math.isnan(v) for r in written for v in r.logprobs)
    assert all(len(r.logprobs) == len(r.tokens) for r in written)


def test_a_completion_ends_at_the_students_stop_id() -> None:
    _, teacher = tables()
    written = TeacherSource().start(make_desk(tables()[0], teacher)).sample(PROMPTS, replace(SAMPLING, n=40))
    assert {r.truncated for r in written} == {True, False}
    assert all(r.truncated == (r.tokens[-1] != STOP) for r in written)


def test_tokens_that_the_student_does_not_have_end_a_completion() -> None:
    table = np.full((60, 60), -30.0)
    table[:, 10], table[10, 59], table[10, 10] = 0.0, 9.0, -30.0  # 10, and after it a token beyond the student's
    (rollout,) = (
        TeacherSource().start(make_desk(tables()[0], TableEngine(table))).sample(PROMPTS[:1], replace(SAMPLING, n=1))
    )
    assert rollout.tokens == (10,)
    assert rollout.truncated


def test_same_seed_same_rollouts() -> None:
    writer = TeacherSource().start(make_desk(*tables()))
    first, again, other = (writer.sample(PROMPTS, replace(SAMPLING, seed=s)) for s in (3, 3, 4))
    assert [r.tokens for r in first] == [r.tokens for r in again] != [r.tokens for r in other]


def test_it_is_no_policy() -> None:
    assert not TeacherSource().policy


def test_another_model_writes_in_the_teachers_place_and_reads_the_prompts_as_they_are() -> None:
    student, other = tables()
    asked: list[str] = []

    def model_engine(path: str) -> TableEngine:
        asked.append(path)
        return other

    desk = replace(make_desk(student, read=lambda given: [(40, *p.tokens) for p in given]), model_engine=model_engine)
    written = TeacherSource(model="specialist").start(desk).sample(PROMPTS, SAMPLING)
    assert asked == ["specialist"]
    assert [p.tokens for p in other.shown] == [p.tokens for p in PROMPTS for _ in range(2)]
    assert {r.origin for r in written} == {"teacher"}


def test_without_other_models_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"source\.model=specialist: no other model can write here"):
        TeacherSource(model="specialist").start(make_desk(*tables()))
