"""Sums with a calculator: what it answers, what it refuses, and what counts as the answer."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opd.protocols import Task
from opd.tasks.arithmetic import Arithmetic
from opd.tasks.calculator import Calculator, evaluate, written
from opd.types import Example
from opd.writing import Environment

TASKS = [Calculator(), Calculator(min_numbers=2, max_numbers=2, max_number=9), Calculator(max_numbers=8, seed=3)]
EXAMPLE = Example("e", (), "1200")


def said(text: str) -> str | None:
    replies = Calculator().reply(EXAMPLE, [{"role": "assistant", "content": text}])
    return None if replies is None else replies[0]["content"]


def test_it_is_a_task_and_an_environment() -> None:
    assert isinstance(Calculator(), Task)
    assert isinstance(Calculator(), Environment)
    assert not isinstance(Arithmetic(), Environment)


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_what_the_calculator_says_of_the_problem(task: Calculator) -> None:
    for example in task.examples("train")[:200]:
        problem = example.messages[-1]["content"].removesuffix(task.suffix)
        assert eval(problem) == int(example.answer)  # of digits and operators, made here
        replies = task.reply(example, [*example.messages, {"role": "assistant", "content": f"calc({problem})"}])
        assert replies == [{"role": "user", "content": example.answer}]
        assert task.verify(example, f"answer: {example.answer}") == 1.0
        assert task.verify(example, f"answer: {int(example.answer) + 1}") == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_no_problem_is_in_both_splits(task: Calculator) -> None:
    train, held_out = ({e.messages[-1]["content"] for e in task.examples(s)[:1500]} for s in ("train", "eval"))
    assert not train & held_out


def test_items_are_the_same_in_every_session() -> None:
    assert Calculator(seed=7).examples("train")[123] == Calculator(seed=7).examples("train")[123]
    assert Calculator(seed=7).examples("train")[123] != Calculator(seed=8).examples("train")[123]
    assert not Calculator().examples("train")[0].completion


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("calc(12*3)", "36"),
        ("I need calc( 1 + 2 ) \n", "3"),
        ("calc((1+2)*3)", "9"),
        ("calc(1) and calc(2-5)", "-3"),
        ("calc(1/4)", "0.25"),
        ("calc(1/3)", "0.3333333333"),
        ("calc(0.1+0.2)", "0.3"),
        ("calc(-(2))", "-2"),
        ("calc(1/0)", "error: division by zero"),
        ("calc(2**9)", "error: not a sum"),
        ("calc(7//2)", "error: not a sum"),
        ("calc(1(2))", "error: not a sum"),
        ("calc(1+)", "error: not a sum"),
        ("calc(x)", "error: not a sum"),
        ("calc()", "error: not a sum"),
        ("calc(__import__('os'))", "error: not a sum"),
        ("calc(" + "9" * 101 + ")", "error: too long"),
        ("calc(" + "(" * 50 + "1" + ")" * 49 + ")", "error: not a sum"),
    ],
)
def test_a_turn_that_ends_with_a_call_is_answered(text: str, reply: str) -> None:
    assert said(text) == reply


@pytest.mark.parametrize("text", ["", "answer: 36", "calc(1+1) is 2", "calc 1+1", "calc(1+1", "36"])
def test_any_other_turn_ends_the_conversation(text: str) -> None:
    assert said(text) is None


@pytest.mark.parametrize("text", ["answer: 1200", "Answer:1,200.", "it is answer: 7, no, answer: 1200.0 eggs"])
def test_the_number_after_the_last_answer_counts(text: str) -> None:
    assert Calculator().verify(EXAMPLE, text) == 1.0


@pytest.mark.parametrize(
    "text", ["", "1200", "answer: 12", "answer: -1200", "answer: 1200.5", "answer: 1200 answer: 1"]
)
def test_anything_else_is_wrong(text: str) -> None:
    assert Calculator().verify(EXAMPLE, text) == 0.0


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789.+-*/() ", max_size=110))
def test_no_expression_does_worse_than_a_value_error(expression: str) -> None:
    try:
        value = evaluate(expression)
    except ValueError:
        return
    assert isinstance(value, Fraction)
    assert written(value)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="max_numbers=2: allowed is at least min_numbers=3"):
        Calculator(min_numbers=3, max_numbers=2)
