"""Sums too large for the head, and a calculator to ask: an environment of two turns and more.

A turn that ends with `calc(EXPRESSION)` is answered with the expression's value; any other turn ends the conversation,
and the number after its `answer:` is what counts. So a model may ask as often as it likes, in steps or at once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import numpy as np
from pydantic import Field

from opd.tasks.drawn import Numbers
from opd.text.numbers import number, plain
from opd.types import Example, Message

LONGEST = 100
"""Characters of an expression that the calculator reads."""
_CALL = re.compile(r"calc\(((?:(?!calc\().)*)\)\s*\Z")
_ANSWER = re.compile(r"answer:[\s*$]*([-+]?[\d.,]+)[*$]*\s*(?=(?:[a-z%]{2,}[a-z ]*|%)?\.?\s*(?:\n|\Z))", re.IGNORECASE)
_SUFFIX = (
    "\n\nTo use a calculator, end your turn with calc(EXPRESSION), such as calc(12*3); you are told the result. "
    "When you know the result, write answer: and the number."
)


@dataclass(frozen=True, kw_only=True)
class Calculator(Numbers):
    """Sums, differences and products of a few numbers, with the usual precedence."""

    min_numbers: Annotated[int, Field(ge=2, le=8)] = 2
    max_numbers: Annotated[int, Field(ge=2, le=8)] = 3
    max_number: Annotated[int, Field(ge=9, le=99_999)] = 999
    """The numbers are 1 to this."""
    suffix: Annotated[str, Field(min_length=0)] = _SUFFIX
    """Text put after every problem: how to use the calculator and to answer."""

    def reply(self, example: Example, messages: Sequence[Message]) -> Sequence[Message] | None:
        """Tell the value of the expression that the last turn ends with; None where it ends with none."""
        call = _CALL.search(messages[-1]["content"])
        if call is None:
            return None
        try:
            said = written(evaluate(call[1]))
        except ValueError as error:
            said = f"error: {error}"
        return [{"role": "user", "content": said}]

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where the number after the last `answer:` is the answer, else 0."""
        _, said, last = plain(text).lower().rpartition("answer:")
        given = _ANSWER.match(said + last)
        return float(given is not None and number(given[1]) == Fraction(example.answer))

    def example(self, name: str, text: str, answer: str) -> Example:
        """Make an item of a problem; no single turn is the right completion, so there is none."""
        return Example(id=name, messages=({"role": "user", "content": text + self.suffix},), answer=answer)

    def draw(self, rng: np.random.Generator) -> tuple[str, str]:
        """Draw one problem: its text, and its answer."""
        text = str(rng.integers(1, self.max_number + 1))
        for _ in range(int(rng.integers(self.min_numbers, self.max_numbers + 1)) - 1):
            text += f"{'+-*'[int(rng.integers(3))]}{rng.integers(1, self.max_number + 1)}"
        return text, written(evaluate(text))


def evaluate(expression: str) -> Fraction:
    """Work out numbers, `+ - * /` and brackets, exactly.

    Raises:
        ValueError: it is too long, divides by zero, or is anything else; the words are for the model.
    """
    if len(expression) > LONGEST:
        raise ValueError("too long")
    if not re.fullmatch(r"[\d.+\-*/() ]+", expression, re.ASCII):
        raise ValueError("not a sum")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError("not a sum") from error
    except ZeroDivisionError as error:
        raise ValueError("division by zero") from error


def written(value: Fraction) -> str:
    """Write a number as a calculator shows it: whole numbers in full, others to ten digits."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left) - _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
    raise ValueError("not a sum")
