"""Answers beside each other: in colour where that is seen, never driving a terminal."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from opd.console.beside import Answer, coloured, drawn, plain

ONE = Answer("one", "good\x1b[2Jbad", 3, False, (("good", 0.1), ("\x1b[2J", math.nan), ("bad", 5.0)), 1.7)
TWO = Answer("two", "x\ny", 4, True)


def on_screen(width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(drawn([ONE, TWO], width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_answers_stand_side_by_side_where_there_is_room() -> None:
    lines = on_screen(100)
    assert "one: 3 tokens, 1.700 nats" in lines[0]
    assert "two: 4 tokens (cut)" in lines[0]
    assert lines == [line for line in lines if "\x1b" not in line]


def test_answers_stand_one_below_the_other_where_there_is_none() -> None:
    lines = on_screen(40)
    assert next(i for i, line in enumerate(lines) if line.startswith("two")) > 2


def test_tokens_that_the_teacher_refuses_are_marked_without_colour_too() -> None:
    text = coloured(ONE)
    (mark,) = [span for span in text.spans if str(span.style) and "underline" in str(span.style)]
    assert text.plain[mark.start : mark.end] == "bad"


@pytest.mark.parametrize("shown", [plain([ONE]), plain([ONE, TWO]), coloured(ONE).plain])
def test_what_a_model_writes_does_not_drive_the_terminal(shown: str) -> None:
    assert "\x1b" not in shown
    assert "\\u001b[2J" in shown


def test_a_long_word_is_shown_whole() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(drawn([Answer("one", "x" * 200), Answer("two", "y")], 80))
    assert out.getvalue().count("x") == 200
