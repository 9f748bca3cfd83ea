r"""Mathematics with an expression for an answer, in the layout of MATH or DeepMath, or any other.

The answer column holds the answer itself, or a solution whose last `\boxed{}` is the answer (Hendrycks et al., 2021).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opd.tasks.cells import text_of
from opd.tasks.files import Row
from opd.tasks.grader import grader
from opd.tasks.rows import Rows
from opd.types import Example, Split, UserError

_TAIL = 500  # characters of a completion without a box in which its answer is looked for


@dataclass(frozen=True, kw_only=True)
class Math(Rows):
    r"""Problems whose answers math-verify compares: `1/2`, `0.5` and `\frac{1}{2}` are the same."""

    prompt_column: str = "problem"
    answer_column: str = "answer"

    def columns(self) -> tuple[str, ...]:
        """Name the columns that must be there."""
        return (*super().columns(), self.answer_column)

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; UserError where math-verify is missing, before any model is loaded."""
        require()
        return super().examples(split)

    def answer(self, row: Row) -> tuple[str, Mapping[str, Any]]:
        """Read the answer: what is in the last box, else the whole cell."""
        cell = text_of(row[self.answer_column], self.at(self.answer_column)).strip()
        answer = last_boxed(cell)
        answer = (cell if answer is None else answer).strip().strip("$").strip().removesuffix(".")
        if not answer:
            raise UserError(f"{self.path}: column {self.answer_column!r} holds no answer but {cell[-40:]!r}")
        return answer, {}

    def completion(self, row: Row) -> str:
        """Read the solution, which the answer column holds where there is a box in it."""
        cell = text_of(row[self.answer_column], self.at(self.answer_column))
        return super().completion(row) or (cell if last_boxed(cell) is not None else "")

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where the completion's last box, or else its end, means the row's answer, else 0."""
        boxed = last_boxed(text)
        if boxed is not None:
            boxed = boxed.strip().removesuffix(".")  # a full stop within the box; math-verify can read no `70.`
            if boxed == example.answer:
                return 1.0  # most right answers are written alike, and need no algebra
        given = text[-_TAIL:] if boxed is None else f"\\boxed{{{boxed}}}"
        return grader().score(comparison, (), example.answer, given) if given.strip() else 0.0


def require() -> None:
    """Raise UserError where math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise UserError('this task checks answers with math-verify, which is not installed: pip install "opd[tasks]"')


def comparison() -> Callable[[str, str], float]:
    """Give what compares a LaTeX expression with an answer, text or LaTeX; for the grader's process."""
    import math_verify

    def equal(gold: str, given: str) -> float:
        # Time is kept by the grader, so math-verify's own alarms, which need a main thread, stay off.
        truth = math_verify.parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
        guess = math_verify.parse(given, parsing_timeout=None)
        return float(math_verify.verify(truth, guess, timeout_seconds=None))

    return equal


def last_boxed(text: str) -> str | None:
    r"""Give what is inside the last `\boxed{...}`, braces balanced; None where there is none or it is cut off."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i]
    return None
