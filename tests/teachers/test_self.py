"""The student as its own teacher: which weights it scores with, and that logits stay those of the scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from opd.batch import to_batch
from opd.evaluation.divergence import text_divergence
from opd.learner.config import Lora, StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models import heads
from opd.needs import Needs
from opd.objectives import ReverseKL
from opd.run.resuming import restore, restore_judges
from opd.run.saving import save
from opd.teachers.local import LocalTeacher
from opd.teachers.own import SelfTeacher
from opd.teaching import Pupil, Scorer, Stateful
from opd.types import Judgement, Pretrained, Rollout, Scored, UserError
from tests.tiny import char_tokenizer, rollouts

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2)]
BOTH = Needs(logprobs=True, distribution=True)
CONTEXT = "{prompt} is {answer}"


def examples() -> list[Rollout]:
    items = rollouts(SHAPES)
    return [
        replace(r, prompt=replace(r.prompt, example=replace(r.prompt.example, answer=str(i))))
        for i, r in enumerate(items)
    ]


def learner(path: Path, lora: bool = False, dtype: Any = "float32", resume: str | None = None) -> Student:
    torch.manual_seed(0)
    config = StudentConfig(
        model=str(path), dtype=dtype, lora=Lora(rank=4) if lora else None, gradient_checkpointing=True
    )
    return Student.load(config, Optim(lr=1e-2), 1.0, resume)


def start(path: Path, student: Student | None, weights: Any, **settings: Any) -> Scorer:
    decay = 0.5 if weights == "ema" else None
    settings = {"context": CONTEXT, "dtype": "float32"} | settings
    teacher = SelfTeacher(weights=weights, decay=decay, **settings)
    return teacher.start(Pupil(char_tokenizer(), 45, Pretrained(str(path)), student))


def step(student: Student, seed: int = 0) -> None:
    """One optimizer step that moves every trained weight."""
    generator = torch.Generator().manual_seed(seed)
    items = examples()
    judged = [Judgement(-3 * torch.rand(len(r.tokens), generator=generator)) for r in items]
    student.update(to_batch([Scored(r, j) for r, j in zip(items, judged, strict=True)], 0, 64), ReverseKL(), 1e-2)


def said(scorer: Scorer, needs: Needs = BOTH) -> torch.Tensor:
    return torch.cat([j.logprobs for j in scorer.score(examples(), needs)])


def in_training(student: Student) -> list[str]:
    """The modules that are set to be trained: those that are computed again on the way back."""
    return [name for name, module in student.model.named_modules() if module.training]


def frozen(path: Path) -> torch.Tensor:
    """What the model at `path` says of the same, read by a local teacher."""
    return said(LocalTeacher(model=str(path), dtype="float32", context=CONTEXT).start(Pupil(char_tokenizer(), 45)))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("weights", ["base", "live", "ema"])
def test_before_the_first_step_all_weights_are_the_base(student_dir: Path, weights: str, lora: bool) -> None:
    scorer = start(student_dir, learner(student_dir, lora), weights)
    torch.testing.assert_close(said(scorer), frozen(student_dir), atol=1e-5, rtol=0)


@pytest.mark.parametrize("lora", [False, True])
def test_base_stays_the_base_while_the_student_steps(student_dir: Path, lora: bool) -> None:
    student = learner(student_dir, lora)
    scorer, layers = start(student_dir, student, "base"), in_training(student)
    before, trained = said(scorer), [id(p) for p in student.model.parameters() if p.requires_grad]
    moving = start(student_dir, student, "live")
    for i in range(3):
        step(student, i)
    assert torch.equal(said(scorer), before)
    assert (said(moving) - before).abs().max() > 0.05, "the student did move"
    assert [id(p) for p in student.model.parameters() if p.requires_grad] == trained
    if lora:
        assert scorer.learner.model is student.model, "no second copy"
    assert layers
    assert in_training(student) == layers


@pytest.mark.parametrize("lora", [False, True])
def test_live_scores_are_those_of_the_newest_weights(student_dir: Path, lora: bool) -> None:
    student = learner(student_dir, lora)
    scorer, layers = start(student_dir, student, "live"), in_training(student)
    step(student)
    items = examples()
    want = student.logprobs(list(zip(scorer.read([r.prompt for r in items]), [r.tokens for r in items], strict=True)))
    torch.testing.assert_close(said(scorer), torch.tensor([v for row in want for v in row]), atol=1e-5, rtol=0)
    assert layers
    assert in_training(student) == layers
    assert all(p.grad is None for p in student.params)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", ["base", "live", "ema"])
def test_logits_stay_those_of_the_scores_while_the_student_steps(
    student_dir: Path, weights: str, dtype: str, lora: bool
) -> None:
    student = learner(student_dir, lora, dtype)
    scorer = start(student_dir, student, weights, temperature=0.7, dtype=dtype)
    items = examples()
    step(student)
    judged = scorer.score(items, BOTH)
    step(student, 1)
    for r, j in zip(items, judged, strict=True):
        assert j.state is not None
        logprobs = heads.gather_logprobs(scorer.logits(j.state), torch.tensor(r.tokens, dtype=torch.int64))
        torch.testing.assert_close(logprobs, j.logprobs, atol=1e-5, rtol=0)


def test_the_average_is_what_the_formula_says(student_dir: Path) -> None:
    student = learner(student_dir)
    scorer = start(student_dir, student, "ema")
    want = {n: p.detach().clone() for n, p in student.model.named_parameters()}
    for i, steps in enumerate([1, 2]):  # two steps between two scores count as decay squared
        for k in range(steps):
            step(student, 10 * i + k)
        now = dict(student.model.named_parameters())
        want = {n: 0.5**steps * w + (1 - 0.5**steps) * now[n].detach() for n, w in want.items()}
        kept = [p.detach().clone() for p in student.params]
        scored = said(scorer)
        assert torch.equal(said(scorer), scored), "scoring again moves nothing"
        assert all(torch.equal(a, b) for a, b in zip(kept, student.params, strict=True)), "the student is as it was"
    for name, average in scorer.averages.items():
        torch.testing.assert_close(average, want[name])


@pytest.mark.parametrize("lora", [False, True])
def test_an_average_goes_on_from_a_checkpoint_as_if_nothing_had_been(
    student_dir: Path, tmp_path: Path, lora: bool
) -> None:
    student = learner(student_dir, lora)
    scorer = start(student_dir, student, "ema")
    assert isinstance(scorer, Stateful)
    said(scorer)
    step(student)
    said(scorer)
    step(student, 1)  # the average has not seen this one yet
    saved = save(tmp_path, 1, student, {"teacher": scorer}, char_tokenizer(), 1)
    again = learner(student_dir, lora, resume=str(saved.model))
    restore(saved, again)
    restored = start(student_dir, again, "ema")
    restore_judges(saved, {"teacher": restored})
    torch.testing.assert_close(said(restored), said(scorer), atol=1e-6, rtol=0)
    for s in (student, again):
        step(s, 2)
    torch.testing.assert_close(said(restored), said(scorer), atol=1e-5, rtol=0)


@pytest.mark.parametrize("weights", ["base", "live"])
def test_what_learns_nothing_has_nothing_to_save(student_dir: Path, weights: str) -> None:
    assert not isinstance(start(student_dir, learner(student_dir), weights), Stateful)


@pytest.mark.parametrize("weights", ["base", "live", "ema"])
def test_without_a_learner_a_frozen_copy_scores_and_says_so(student_dir: Path, weights: str) -> None:
    scorer = start(student_dir, None, weights)
    torch.testing.assert_close(said(scorer), frozen(student_dir), atol=1e-5, rtol=0)
    assert any("frozen copy" in note for note in scorer.notes([]))


def test_the_context_is_read_by_the_teacher_alone(student_dir: Path) -> None:
    scorer = start(student_dir, learner(student_dir), "live")
    items = examples()
    texts = [char_tokenizer().decode(ids) for ids in scorer.read([r.prompt for r in items])]
    assert texts == [f"1+1 is {i}:" for i in range(len(items))]
    assert any("differently" in note for note in scorer.notes([r.prompt for r in items]))
    with pytest.raises(UserError, match=r"teacher\.context: {solution} is no column"):
        start(student_dir, learner(student_dir), "live", context="{solution}").read([items[0].prompt])


def test_a_teacher_that_would_be_the_student_is_refused() -> None:
    with pytest.raises(ValueError, match="weights=live: without context"):
        SelfTeacher(weights="live")
    with pytest.raises(ValueError, match="weights=live"):
        SelfTeacher(weights="live", prompt="student")
    assert SelfTeacher(weights="live", system="think").checkpoint() is None
    SelfTeacher(weights="base")  # a reference model


def test_a_decay_belongs_to_an_average_alone() -> None:
    with pytest.raises(ValueError, match="decay=None: with weights=ema allowed is a number"):
        SelfTeacher(weights="ema", context=CONTEXT)
    with pytest.raises(ValueError, match=r"decay=0\.9: with weights=base allowed is null"):
        SelfTeacher(weights="base", decay=0.9)


def test_in_bfloat16_an_average_is_not_read_with_the_students_weights_nor_the_reverse(student_dir: Path) -> None:
    found = {}
    for dtype in ("float32", "bfloat16"):
        student = Student.load(StudentConfig(model=str(student_dir), dtype=dtype), Optim(), 1.0)
        teacher = start(student_dir, student, "ema", context=None)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for p in student.params:
                p.add_(0.05 * torch.randn(p.shape, generator=generator))
        with student.read() as split:
            found[dtype] = text_divergence(split, teacher, rollouts([(3, 9), (2, 7), (4, 8)]), 12)["eval/text_kl"]
    assert found["float32"] > 0.1
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.03)
