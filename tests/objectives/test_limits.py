"""Where there is nothing to learn, and where there is hardly anything to learn from. For every objective."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from opd.batch import to_batch
from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.teaching import Scorer
from tests.objectives.cases import CASES, Case, assert_same, judged, naive_step, step
from tests.objectives.conftest import start
from tests.tiny import save_model

NAMES = {c.name: c for c in CASES}
WIDE = ["reverse_kl sampled ppo", "reverse_kl exact", "gkd 0.3", "top_k of=teacher 1.0", "minillm",
        "top_k of=student importance_sampling"]  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if c.divergence], ids=lambda c: c.name)
def test_a_teacher_that_is_the_student_leaves_no_loss_and_no_gradient(
    case: Case, student: Student, student_dir: Path
) -> None:
    student = replace(student, temperature=1.0)
    items = judged(case, student, start(student_dir), noise=0.0)
    found = step(student, to_batch(items, 0, 24), case.objective, start(student_dir))
    assert abs(found.loss) < 2e-6
    assert found.size < 1e-5


@pytest.mark.parametrize("shapes", [[(3, 0)], [(3, 0), (3, 0), (1, 0)]], ids=["one", "three"])
def test_empty_completions_carry_no_loss(
    case: Case, shapes: list[tuple[int, int]], student: Student, teacher: Scorer
) -> None:
    batch = to_batch(judged(case, student, teacher, shapes), 0, 24)
    assert batch.trained == 0
    found = step(student, batch, case.objective, teacher)
    assert (found.loss, found.size) == (0.0, 0.0)


def test_completions_without_a_trained_token_carry_no_loss(case: Case, student: Student, teacher: Scorer) -> None:
    items = [
        replace(s, rollout=replace(s.rollout, trained=(False,) * len(s.rollout.tokens)))
        for s in judged(case, student, teacher, [(3, 4), (3, 2), (2, 0)])
    ]
    found = step(student, to_batch(items, 0, 24), case.objective, teacher)
    assert (found.loss, found.size) == (0.0, 0.0)


def test_one_token_completions_are_trained(case: Case, student: Student, teacher: Scorer) -> None:
    items = judged(case, student, teacher, [(3, 1), (3, 1), (1, 1), (1, 1)])
    found = step(student, to_batch(items, 0, 24), case.objective, teacher)
    assert found.size > 1e-5
    assert_same(found, naive_step(student, items, case.objective, teacher))


def test_empty_completions_beside_others_change_nothing_for_them(case: Case, student: Student, teacher: Scorer) -> None:
    shapes = [(3, 4), (3, 6), (2, 2), (2, 5)]
    items = judged(case, student, teacher, shapes)
    empty = judged(case, student, teacher, [(2, 0)])[0]
    assert_same(
        step(student, to_batch([*items, empty], 0, 24), case.objective, teacher),
        step(student, to_batch(items, 0, 24), case.objective, teacher),
    )


@pytest.fixture(scope="module", params=[(151_936, 152_064), (152_064, 151_936)], ids=["teacher wider", "student wider"])
def padded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Scorer]:
    """Two models of one tokenizer whose output heads were padded to different sizes, as Qwen2.5's are."""
    own, theirs = request.param
    path = save_model(tmp_path_factory.mktemp("s"), "qwen3", seed=1, tied=True, hidden=8, layers=1, vocab=own)
    other = save_model(tmp_path_factory.mktemp("t"), "llama", seed=2, tied=True, hidden=8, layers=1, vocab=theirs)
    student = Student.load(StudentConfig(model=str(path), dtype="float32"), Optim(), 1.0)
    teacher = start(other, own)
    for split in (student.split, teacher.split):  # far from uniform, padding rows included
        split.head.weight.data.mul_(3)
    return student, teacher


@pytest.mark.parametrize("name", WIDE)
def test_rows_that_only_pad_a_vocabulary_are_cut_off(name: str, padded: tuple[Student, Scorer]) -> None:
    student, teacher = padded
    items = judged(NAMES[name], student, teacher, [(2, 3), (2, 4)])
    objective = NAMES[name].objective
    found = step(student, to_batch(items, 0, 24), objective, teacher)
    assert found.size > 1e-5
    assert_same(found, naive_step(student, items, objective, teacher))
