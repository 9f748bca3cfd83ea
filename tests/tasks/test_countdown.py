"""Countdown: solvable problems, and a reader of answers that nothing surprises."""

import time

import pytest

from opd.protocols import Task
from opd.tasks.calculator import evaluate
from opd.tasks.countdown import Countdown
from opd.types import Split

TASKS = [
    Countdown(),
    Countdown(every_number=True, seed=3),
    Countdown(min_numbers=2, max_numbers=2, max_number=9, max_target=10),
    Countdown(min_numbers=6, max_numbers=6, max_number=999, max_target=10),
]
EXAMPLE = Countdown().example("one", "Use the numbers 2, 3, 4, 4, each at most once, to make 20.", "(2 + 3) * 4")


def score(text: str, **settings) -> float:
    return Countdown(**settings).verify(EXAMPLE, text)


def problems(task: Countdown, split: Split) -> set[tuple[int, ...]]:
    return {(*e.meta["numbers"], e.meta["target"]) for e in task.examples(split)[:1000]}


@pytest.mark.parametrize("task", TASKS)
def test_every_problem_is_solved_by_what_it_was_made_from(task: Countdown) -> None:
    assert isinstance(task, Task)
    for example in task.examples("train")[:50]:
        assert evaluate(example.answer) == example.meta["target"] <= task.max_target
        assert task.verify(example, example.completion) == 1.0
        assert task.verify(example, example.answer) == 1.0
        assert task.verify(example, str(example.meta["target"])) == 0.0


@pytest.mark.parametrize("task", TASKS[:3])
def test_no_problem_is_in_both_splits(task: Countdown) -> None:
    train, held_out = (problems(task, split) for split in ("train", "eval"))
    assert not train & held_out


def test_items_are_the_same_in_every_session() -> None:
    assert Countdown(seed=7).examples("train")[123] == Countdown(seed=7).examples("train")[123]
    assert Countdown(seed=7).examples("train")[123] != Countdown(seed=8).examples("train")[123]


def test_the_prompt_says_the_numbers_the_target_and_the_form_of_the_answer() -> None:
    example = Countdown(every_number=True).examples("eval")[0]
    text = example.messages[0]["content"]
    assert text.startswith(f"Use the numbers {', '.join(map(str, example.meta['numbers']))}, each exactly once, with")
    assert f"to make {example.meta['target']}." in text
    assert text.endswith("such as <answer>(2 + 3) * 4</answer>.")


@pytest.mark.parametrize(
    "text",
    [
        "(2+3)*4",
        "<answer>(2 + 3) * 4</answer>",
        "<think>4*4</think> so <answer>\n(2+3)*4 = 20\n</answer> done",
        "First <answer>4*4</answer>, no: <answer>(2+3)×4</answer>",
        "I try 4*4 + 4.\n4 * (3 + 2)",
        "[2+3]*4 = 20",
        "-4 + 4*3*2",
        "$(2+3)*4$",
        "(2 + 3) x 4",
    ],
)
def test_any_expression_of_the_numbers_that_makes_the_target_is_right(text: str) -> None:
    assert score(text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20",
        "4*5",  # a number that is not there
        "2+3*4",
        "(2+3)*4 = 21",
        "4*4+2+2",  # twice
        "24-4",  # two digits put together
        "2.0+3.0+15",
        "the answer is (2+3)*4",
        "(2+3)*4 and more",
        "<answer>(2+3)*4</answer> <answer></answer>",
        "<answer></answer>\n(2+3)*4",
        "<answer>(2+3)*4",
        "(2+3)*4 = 20 = 20 = 2+18",  # a second sum, of numbers that are not there
        "(2+3)*4 = 2+18",
        "20 = (2+3)*4 = 21",
    ],
)
def test_everything_else_is_wrong(text: str) -> None:
    assert score(text) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50 + "2" + ")" * 50,
        "(" * 100_000,
        "<answer>" * 20_000 + "</answer>" * 20_000,
        "<answer>" + "-" * 90 + "4</answer>",
        "9**9**9**9",
        "2**4+4",
        "4/(3-3)",
        "4/0",
        "4//3",
        "2e1",
        "0x14",
        "4_0/2",
        "__import__('os').system('true')",
        "(2+3)(4)",
        "(2+3)*4==20",
        "=",
        "=20",
        "٢٠",
        "(2,3)[0]*4",
        "1" * 90,
        "\x00",
        "(2+3)*4#",
        "\n(2+3)\n*4\n",
    ],
)
def test_odd_answers_are_wrong_and_quickly_so(text: str) -> None:
    start = time.process_time()
    assert score(text) == 0.0
    assert time.process_time() - start < 1.0


def test_every_number_may_have_to_be_used() -> None:
    assert score("(2+3)*4", every_number=True) == 0.0
    assert score("4*(3*2)-4", every_number=True) == 1.0


def test_an_empty_range_of_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="max_numbers=2: allowed is at least min_numbers=3"):
        Countdown(max_numbers=2)
