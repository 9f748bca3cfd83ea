"""Scoring in a process of its own: it ends, and it can do nothing but score."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opd.tasks.grader import Grader
from opd.types import RunError


def evaluating(base: int) -> Callable[[str], float]:
    """A scorer as careless as there can be."""
    return lambda text: float(eval(text)) + base


def failing() -> Callable[[str], float]:
    raise ValueError


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    one = Grader(seconds=1)
    yield one
    one.close()


def test_a_scorer_is_made_of_its_settings(grader: Grader) -> None:
    assert [grader.score(evaluating, (base,), "0.25") for base in (1, 2, 1)] == [1.25, 2.25, 1.25]


@pytest.mark.parametrize("text", ["9**9**9**9", "[i for i in iter(int, 1)]", "(lambda f: f(f))(lambda f: f(f))", "no"])
def test_an_endless_or_unreadable_answer_scores_nothing_and_the_next_one_is_scored(grader: Grader, text: str) -> None:
    start = time.monotonic()
    assert grader.score(evaluating, (0,), text) == 0.0
    assert time.monotonic() - start < 10
    assert grader.score(evaluating, (0,), "0.5") == 0.5


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system('echo x > {}') + 1",
        "open('{}', 'w').write('x')",
        "exec('import pathlib; pathlib.Path(\"{}\").touch()') or 1",
        "__import__('subprocess').run(['touch', '{}']).returncode + 1",
        "__import__('os').open('{}', 65) + 1",
        "__import__('os').posix_spawnp('touch', ['touch', '{}'], dict(__import__('os').environ))",
        "__import__('os').symlink('/', '{}') or 1",
        "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['touch', '{}']).wait() + 1",
        "__import__('socket').socket().connect_ex(('127.0.0.1', 9)) or 1",
    ],
)
def test_code_that_a_scorer_evaluates_writes_no_file_and_starts_no_program(
    grader: Grader, tmp_path: Path, code: str
) -> None:
    assert grader.score(evaluating, (0,), code.replace("{}", str(tmp_path / "made"))) == 0.0
    assert not list(tmp_path.iterdir())


def test_a_scorer_that_cannot_be_made_is_an_error() -> None:
    grader = Grader()
    with pytest.raises(RunError, match=r"run .*opd\.tasks\.grader to see why"):
        grader.score(failing, ())
    grader.close()


def test_closing_ends_the_process_and_may_be_repeated() -> None:
    grader = Grader()
    assert grader.score(evaluating, (0,), "1") == 1.0
    child = grader._child
    grader.close()
    grader.close()
    assert child is not None
    assert child.returncode is not None
