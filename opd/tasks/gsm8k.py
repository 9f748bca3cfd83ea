"""Grade-school word problems in GSM8K's layout: `question`, and an `answer` that ends with `#### 42`.

Cobbe et al., 2021. Answers are numbers, so they are compared as numbers, without a symbolic library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from opd.tasks.cells import text_of
from opd.tasks.files import Row
from opd.tasks.rows import Rows
from opd.types import Example, UserError

_NUMBER = r"(?:-?\\[dt]?frac\{\d+\}\{\d+\}|-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?)"
_MARKED = (
    re.compile(rf"####\s*\$?\s*({_NUMBER})"),
    re.compile(rf"\\boxed\{{\s*\\?\$?\s*({_NUMBER})[^{{}}]*\}}"),
    re.compile(rf"answer(?: is|:)[\s*:$\\]*({_NUMBER})", re.IGNORECASE),
)
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_NOTE = re.compile(r"<<[^<>]*>>")
_ANY = re.compile(rf"(?<![\w.)])({_NUMBER})|(\d[\d,]*(?:\.\d+)?)")


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Rows):
    """Word problems with a number for an answer; the rows are the user's own copy, or the hub's `openai/gsm8k`."""

    prompt_column: str = "question"
    answer_column: str = "answer"

    def columns(self) -> tuple[str, ...]:
        """Name the columns that must be there."""
        return (*super().columns(), self.answer_column)

    def answer(self, row: Row) -> tuple[str, Mapping[str, Any]]:
        """Read the number after `####`, or the cell itself where it is only a number."""
        cell = text_of(row[self.answer_column], self.at(self.answer_column))
        answer = cell.rpartition("####")[2].strip().replace(",", "").lstrip("$")
        if number(answer) is None:
            raise UserError(
                f"{self.path}: column {self.answer_column!r} does not end with '#### NUMBER': {cell[-40:]!r}"
            )
        return answer, {}

    def completion(self, row: Row) -> str:
        """Read the worked answer, without the notes for a calculator in it (`<<48/2=24>>`)."""
        return super().completion(row) or _NOTE.sub("", text_of(row[self.answer_column], "")).strip()

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where the completion's answer equals the row's number, else 0."""
        given = final_number(text)
        return float(given is not None and given == number(example.answer))


def final_number(text: str) -> Fraction | None:
    """Find the answer in a completion: the last one marked by `####`, a box or "answer is", else the last number."""
    marked = [match for pattern in _MARKED for match in pattern.finditer(text)]
    if marked:  # by place, not by kind: `####` is a heading too, and what comes last is meant
        return number(max(marked, key=lambda match: match.start())[1])
    found = [signed or bare for signed, bare in _ANY.findall(text)]
    return number(found[-1]) if found else None


def number(text: str) -> Fraction | None:
    """Read a number exactly; None where `text` is none."""
    try:
        return Fraction(_FRACTION.sub(r"\1/\2", text.replace(",", "")))
    except (ValueError, ZeroDivisionError):
        return None
