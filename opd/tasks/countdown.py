"""Countdown: combine given numbers with `+ - * /` so that they make a target, each number used once at most.

Every problem has a solution, since it is made from one. Answers are worked out exactly, by the calculator's own reader,
and never run as code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from opd.tasks.calculator import LONGEST, evaluate
from opd.tasks.drawn import Numbers
from opd.text.numbers import number
from opd.types import Example

_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*)</answer>", re.DOTALL)
_SIGNS = str.maketrans("×·xX÷−–[]{}", "****/--()()")  # the signs that people write
_LATEX = re.compile(r"\\(?:(times|cdot|ast)|(div)|left|right|[()\[\],;! ])(?![A-Za-z])")
_AROUND = re.compile(r"(\*\*?|`|\$\$?)(.+)\1", re.DOTALL)
_SUFFIX = "\n\nGive the expression alone between <answer> and </answer>, such as <answer>(2 + 3) * 4</answer>."


@dataclass(frozen=True, kw_only=True)
class Countdown(Numbers):
    """Whole numbers, and a whole number to make of them; no step of the intended solution goes below 1."""

    min_numbers: Annotated[int, Field(ge=2, le=6)] = 3
    max_numbers: Annotated[int, Field(ge=2, le=6)] = 4
    max_number: Annotated[int, Field(ge=9, le=999)] = 99
    """The numbers are 1 to this."""
    max_target: Annotated[int, Field(ge=10, le=9999)] = 100
    """The target is 1 to this, and none of the numbers."""
    every_number: bool = False
    """Whether each number has to be used exactly once, not once at most."""
    suffix: Annotated[str, Field(min_length=0)] = _SUFFIX
    """Text put after every problem: how the answer is to be given."""

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where the last expression between answer tags, or else the last line, makes the target, else 0.

        `= 24` may follow the expression, once: a number, and the true one.
        """
        tagged = _TAGGED.findall(text)
        lines = text.strip().splitlines()
        given = tagged[-1] if tagged else lines[-1] if lines else ""
        if len(given) > 2 * LONGEST:
            return 0.0
        expression, *said = _plain(given).split("=")
        target = example.meta["target"]
        try:
            right = evaluate(expression) == target and [number(side) for side in said] in ([], [target])
        except ValueError:
            return 0.0
        return float(right and self._allowed(expression, example.meta["numbers"]))

    def _allowed(self, expression: str, numbers: Sequence[int]) -> bool:
        """Whether an expression is written with the numbers that were given, and is not a number alone."""
        used, given = Counter(re.findall(r"[\d.]+", expression)), Counter(map(str, numbers))
        return used == given if self.every_number else used <= given

    def example(self, name: str, text: str, answer: str) -> Example:
        """Make an item of a problem, whose answer is the solution that it was made from."""
        *numbers, target = map(int, re.findall(r"\d+", text))
        return Example(
            id=name, messages=({"role": "user", "content": text + self.suffix},), answer=answer,
            meta={"numbers": numbers, "target": target}, completion=f"<answer>{answer}</answer>",
        )  # fmt: skip

    def draw(self, rng: np.random.Generator) -> tuple[str, str]:
        """Draw one problem: its text, and the solution that it was made from."""
        while True:
            count = int(rng.integers(self.min_numbers, self.max_numbers + 1))
            numbers = sorted(int(n) for n in rng.integers(1, self.max_number + 1, count))
            target, solution = self._combine(rng, numbers)
            if target <= self.max_target and target not in numbers:
                break
        use = "each exactly once" if self.every_number else "each at most once"
        given = ", ".join(map(str, numbers))
        return f"Use the numbers {given}, {use}, with + - * / and brackets to make {target}.", solution

    def _combine(self, rng: np.random.Generator, numbers: Sequence[int]) -> tuple[int, str]:
        """Join two random terms by a random operator until there is one; give its value and how it was made."""
        terms = [(n, str(n)) for n in numbers]
        while len(terms) > 1:
            rng.shuffle(terms)  # type: ignore[arg-type]  # a list is shuffled in place like an array
            (a, left), (b, right), *terms = terms
            results = list(_results(a, b, 10 * self.max_target))
            op, value = results[int(rng.integers(len(results)))]
            terms.append((value, f"({left} {op} {right})"))
        value, solution = terms[0]
        return value, solution[1:-1]


def _plain(given: str) -> str:
    """An expression in the calculator's signs, without the marks of LaTeX or Markdown around it."""
    given = given.strip().removesuffix(".")
    while around := _AROUND.fullmatch(given):
        given = around[2].strip().removesuffix(".")
    return _LATEX.sub(lambda sign: "*" if sign[1] else "/" if sign[2] else "", given).strip().translate(_SIGNS)


def _results(a: int, b: int, largest: int) -> Iterator[tuple[str, int]]:
    """What two numbers make that is whole and at least 1; a product only within bounds, so that targets are reached."""
    yield "+", a + b
    if a > b:
        yield "-", a - b
    if a * b <= largest:
        yield "*", a * b
    if a % b == 0:
        yield "/", a // b
