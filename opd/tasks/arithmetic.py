"""Sums and differences worked out from left to right: `7+5-4:` is answered `7+5=12;12-4=8`.

Small enough for a character-level model of 0.1M parameters to learn within a minute on a CPU, and readable by a
person: every total on the way is written down, so one sees at which character a student and its teacher part.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from opd.tasks.drawn import Drawn
from opd.text.numbers import numbers, plain, second
from opd.types import Example, Split

_STRESSED = re.compile(r"(?<![\w*])(\*{1,2})([^\s*]+)\1(?![\w*])")
_GOES_ON = re.compile(r"\s*[-+*/×÷=^]|[A-Za-z%]")
"""Behind a number: a sum that is not worked out, or a unit."""
_STEP = re.compile(r"([+*-])(\d+)")


@dataclass(frozen=True)
class Arithmetic:
    """Chains of one-digit operations whose totals stay within 0 and `max_value`."""

    min_operations: Annotated[int, Field(ge=1, le=11)] = 3
    """Fewest operations in a problem; each adds up to eight characters to the working."""
    max_operations: Annotated[int, Field(ge=1, le=11)] = 5
    """Most operations in a problem; 5 keeps the working within 40 characters."""
    max_operand: Annotated[int, Field(ge=1, le=9)] = 9
    """The first number and all operands are 1 to this."""
    max_value: Annotated[int, Field(ge=9, le=999)] = 99
    """Totals are 0 to this."""
    operators: Literal["+-", "+-*"] = "+-"
    """`*` too is worked out from left to right, as on a pocket calculator."""
    size: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    """Length of the train split; items are made on access, drawn with replacement."""
    eval_size: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Length of the eval split."""
    seed: int = 0
    """Which examples are drawn."""

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if self.max_operations < self.min_operations:
            raise ValueError(f"max_operations: {self.max_operations} is below min_operations ({self.min_operations})")

    @property
    def alphabet(self) -> str:
        """Every character that prompts and solutions are written with."""
        return "0123456789" + self.operators + "=;:"

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; no problem is in both, by the hash of its text."""
        return Drawn(self, split)

    def solution(self, example: Example) -> str:
        """Write out the whole correct completion, working and answer, without an EOS."""
        text = example.messages[-1]["content"]
        total = int(re.match(r"\d+", text).group())  # type: ignore[union-attr]  # every problem starts with a digit
        lines = []
        for op, operand in _STEP.findall(text):
            result = _apply(total, op, int(operand))
            lines.append(f"{total}{op}{operand}={result}")
            total = result
        return ";".join(lines)

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where the last number of `text` is the answer, and no part of a sum or of another number, else 0."""
        text = _STRESSED.sub(r"\2", plain(text))
        last = next(iter(deque(numbers(text), maxlen=1)), None)
        if last is None or second(text, last.start) or _GOES_ON.match(text, last.end):
            return 0.0
        return float(last.value == int(example.answer))

    def example(self, name: str, text: str, answer: str) -> Example:
        """Make an item of a problem."""
        item = Example(id=name, messages=({"role": "user", "content": text},), answer=answer)
        return replace(item, completion=self.solution(item))

    def draw(self, rng: np.random.Generator) -> tuple[str, str]:
        """Draw one problem: its text, and its answer."""
        total = int(rng.integers(1, self.max_operand + 1))
        text = str(total)
        for _ in range(int(rng.integers(self.min_operations, self.max_operations + 1))):
            op, operand, total = self._operation(rng, total)
            text += f"{op}{operand}"
        return text + ":", str(total)

    def _operation(self, rng: np.random.Generator, total: int) -> tuple[str, int, int]:
        """Draw an operator and an operand that keep the total in range: from any total, +1 or -1 does."""
        while True:
            op = self.operators[int(rng.integers(len(self.operators)))]
            operand = int(rng.integers(1, self.max_operand + 1))
            result = _apply(total, op, operand)
            if 0 <= result <= self.max_value:
                return op, operand, result


def _apply(total: int, op: str, operand: int) -> int:
    return {"+": total + operand, "-": total - operand, "*": total * operand}[op]
