"""Procedural chains of sums."""

import pytest

from opd.protocols import Task
from opd.tasks.arithmetic import Arithmetic

TASKS = [
    Arithmetic(),
    Arithmetic(operators="+-*", seed=3),
    Arithmetic(min_operations=1, max_operations=1, max_value=9),
    Arithmetic(min_operations=11, max_operations=11, max_operand=2),
]


def text(example) -> str:
    return example.messages[0]["content"]


@pytest.mark.parametrize("task", TASKS)
def test_the_verifier_accepts_the_solution_and_refuses_any_other_answer(task: Arithmetic) -> None:
    for example in task.examples("train")[:200]:
        solution = task.solution(example)
        assert task.verify(example, solution) == 1.0
        assert example.completion == solution
        assert task.verify(example, f"{solution[: solution.rindex('=')]}={int(example.answer) + 1}") == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_no_problem_is_in_both_splits(task: Arithmetic) -> None:
    train = {text(e) for e in task.examples("train")[:2000]}
    assert not train & {text(e) for e in task.examples("eval")[:500]}


@pytest.mark.parametrize("task", TASKS)
def test_every_line_of_the_working_is_true_and_in_range(task: Arithmetic) -> None:
    for example in task.examples("eval")[:200]:
        for line in task.solution(example).split(";"):
            sum_, total = line.split("=")
            assert eval(sum_) == int(total)  # of digits and one operator, made here
            assert 0 <= int(total) <= task.max_value


def test_the_answer_is_the_value_of_the_problem() -> None:
    for example in Arithmetic().examples("train")[:200]:
        assert eval(text(example).rstrip(":")) == int(example.answer)


@pytest.mark.parametrize("task", TASKS)
def test_the_alphabet_covers_prompts_and_solutions(task: Arithmetic) -> None:
    used = {c for e in task.examples("train")[:500] for c in text(e) + task.solution(e)}
    assert used <= set(task.alphabet)
    assert len(set(task.alphabet)) == len(task.alphabet)


def test_default_texts_are_short() -> None:
    task = Arithmetic()
    for example in task.examples("train")[:1000]:
        assert len(text(example)) <= 24
        assert len(task.solution(example)) <= 40


def test_items_are_the_same_in_every_session() -> None:
    task = Arithmetic(seed=7)
    assert isinstance(task, Task)
    assert task.examples("train")[123] == Arithmetic(seed=7).examples("train")[123]
    assert task.examples("train")[123] != Arithmetic(seed=8).examples("train")[123]
    assert [text(e) for e in Arithmetic().examples("train")[:2]] == ["8-3+1+1+8:", "9+4-6-3-2:"]


def test_splits_have_their_size_and_an_end() -> None:
    train = Arithmetic(size=10).examples("train")
    assert len(train) == len(list(train)) == 10
    assert len({e.id for e in train}) == 10
    assert train[-1] == train[9]
    with pytest.raises(IndexError):
        train[10]


@pytest.mark.parametrize("given", ["8", "the answer is 8.", "2+6=8", "it is 8.0", "12 - 4 = 8", "2+6=8;", "**8**"])
def test_the_last_number_counts_however_it_is_written(given: str) -> None:
    task = Arithmetic()
    example = next(e for e in task.examples("train") if e.answer == "8")
    assert task.verify(example, given) == 1.0


@pytest.mark.parametrize("given", ["", "eight", "-8", "8, or 9", "80", "8.5", "9-8", "1,8", "8-9", "8*x", "8+", "2*8"])
def test_other_endings_are_wrong(given: str) -> None:
    task = Arithmetic()
    example = next(e for e in task.examples("train") if e.answer == "8")
    assert task.verify(example, given) == 0.0


def test_an_empty_range_of_operations_is_refused() -> None:
    with pytest.raises(ValueError, match="max_operations: 2 is below"):
        Arithmetic(max_operations=2)
