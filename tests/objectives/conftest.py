"""One tiny student and one tiny teacher for all of these tests: none of them takes a step."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.teachers.local import LocalTeacher
from opd.teaching import Pupil, Scorer
from tests.objectives.cases import CASES, Case
from tests.tiny import char_tokenizer


def start(path: Path, size: int = 45) -> Scorer:
    """A teacher that reads the student's prompt ids."""
    settings = LocalTeacher(model=str(path), dtype="float32", prompt="student")
    return settings.start(Pupil(char_tokenizer(), size))


@pytest.fixture(scope="session")
def student(student_dir: Path) -> Student:
    return Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), temperature=0.8)


@pytest.fixture(scope="session")
def teacher(teacher_dir: Path) -> Scorer:
    return start(teacher_dir)


@pytest.fixture(params=CASES, ids=lambda c: c.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Every objective."""
    found: Case = request.param
    return found
