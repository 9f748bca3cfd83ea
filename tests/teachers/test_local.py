"""The local teacher: however its rollouts are batched, its word on a token is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from opd import heads
from opd.batch import to_batch
from opd.objectives import ReverseKL
from opd.optim import Optim
from opd.protocols import Pupil, Scorer
from opd.student import Student, StudentConfig
from opd.teachers.local import LocalTeacher
from opd.types import Needs, Scored, UserError
from tests.tiny import char_tokenizer, rollouts

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2), (1, 12), (5, 5)]
LOGPROBS = Needs(logprobs=True)
BOTH = Needs(logprobs=True, distribution=True)


def start(path: Path, **settings: Any) -> Scorer:
    return LocalTeacher(model=str(path), **({"dtype": "float32"} | settings)).start(Pupil(char_tokenizer(), 45))


def values(scorer: Scorer, batches: list[list[Any]]) -> list[list[float]]:
    return [j.logprobs.tolist() for batch in batches for j in scorer.score(batch, LOGPROBS)]


def test_batched_chunked_and_one_by_one_scores_agree(teacher_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = rollouts(SHAPES)
    together = values(start(teacher_dir), [items])
    single = values(start(teacher_dir), [[r] for r in items])
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 45 * 16)
    small = values(start(teacher_dir, micro_tokens=20), [items])
    for a, b, c in zip(together, single, small, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
        assert a == pytest.approx(c, abs=1e-5)


def test_scores_are_those_of_a_plain_forward_after_its_own_prompt(teacher_dir: Path) -> None:
    items = rollouts(SHAPES)
    model = AutoModelForCausalLM.from_pretrained(teacher_dir, dtype=torch.float32)
    prompt = char_tokenizer()("1+1:")["input_ids"]  # the teacher's template, not the random ids of the student's prompt
    for r, j in zip(items, start(teacher_dir, temperature=2.0).score(items, LOGPROBS), strict=True):
        if not r.tokens:
            continue
        ids = torch.tensor([[*prompt, *r.tokens]])
        logp = (model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / 2.0).log_softmax(-1)
        want = logp.gather(-1, torch.tensor(r.tokens)[:, None])[:, 0]
        torch.testing.assert_close(j.logprobs, want, atol=1e-5, rtol=0)


def test_the_students_prompt_can_be_used_as_it_is(teacher_dir: Path) -> None:
    items = rollouts(SHAPES)
    model = AutoModelForCausalLM.from_pretrained(teacher_dir, dtype=torch.float32)
    r, judgement = items[0], start(teacher_dir, prompt="student").score(items, LOGPROBS)[0]
    ids = torch.tensor([[*r.prompt.tokens, *r.tokens]])
    logp = model(input_ids=ids).logits[0, len(r.prompt.tokens) - 1 : -1].log_softmax(-1)
    want = logp.gather(-1, torch.tensor(r.tokens)[:, None])[:, 0]
    torch.testing.assert_close(judgement.logprobs, want, atol=1e-5, rtol=0)


def test_hidden_states_give_the_scores_back_through_its_head(teacher_dir: Path) -> None:
    teacher = start(teacher_dir)
    items = rollouts(SHAPES)
    for r, j in zip(items, teacher.score(items, BOTH), strict=True):
        assert j.state is not None
        logp = heads.gather_logprobs(teacher.logits(j.state), torch.tensor(r.tokens, dtype=torch.int64))
        torch.testing.assert_close(logp, j.logprobs, atol=1e-5, rtol=0)


def test_the_likeliest_tokens_are_those_of_its_distribution(teacher_dir: Path) -> None:
    teacher, items = start(teacher_dir), rollouts(SHAPES)
    for j in teacher.score(items, Needs(logprobs=True, distribution=True, top_k=3)):
        assert j.state is not None
        best = teacher.logits(j.state).log_softmax(-1).topk(3)
        assert torch.equal(j.top_ids, best.indices)
        torch.testing.assert_close(j.top_logprobs, best.values, atol=1e-5, rtol=0)


def test_a_teacher_that_is_the_student_has_no_kl(student_dir: Path) -> None:
    teacher = start(student_dir, prompt="student")
    student = Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), 1.0)
    items = rollouts(SHAPES)
    own = student.logprobs([(r.prompt.tokens, r.tokens) for r in items])
    items = [replace(r, logprobs=tuple(v)) for r, v in zip(items, own, strict=True)]
    metrics = student.update(
        to_batch([Scored(r, j) for r, j in zip(items, teacher.score(items, BOTH), strict=True)], 0, 64),
        ReverseKL(),
        0.0,
        teacher,
    )
    assert abs(metrics["kl/sampled"]) < 1e-5
    assert abs(metrics["kl/exact"]) < 1e-5
    assert metrics["kl/student_entropy"] == pytest.approx(metrics["kl/teacher_entropy"], abs=1e-4)


def test_padding_rows_of_the_head_are_left_out_and_said(tmp_path: Path) -> None:
    from tests.tiny import save_model

    wide = save_model(tmp_path, "llama", seed=3, tied=False, vocab=64)
    teacher = start(wide)
    assert teacher.logits(torch.zeros(1, 64)).shape == (1, 45)
    assert any("45 and 64 rows" in note for note in teacher.notes([]))


def test_the_same_size_with_other_tokens_is_refused(teacher_dir: Path) -> None:
    other = char_tokenizer("abcdefghijklmnopqrstuvwxyz 0123456789+-*=;:")
    with pytest.raises(UserError, match="do not share a vocabulary"):
        LocalTeacher(model=str(teacher_dir)).start(Pupil(other, 45))
