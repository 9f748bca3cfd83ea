"""Grade-school word problems in GSM8K's layout: `question`, and an `answer` that ends with `#### 42`.

Cobbe et al., 2021. Answers are numbers, so they are compared as numbers, without a symbolic library.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from opd.tasks.cells import text_of
from opd.tasks.files import Row
from opd.tasks.rows import Rows
from opd.text.boxes import last_box
from opd.text.numbers import number, numbers, plain
from opd.types import Example, UserError

_BEGINS = r"(?=[-+]?(?:\\?[$€£¥]\s?)?[-+]?(?:\.?\d|\\[dt]?frac))"
_MARKED = (
    re.compile(rf"####[ \t]*{_BEGINS}"),
    re.compile(rf"answer(?: is|:)(?:[\s*:_]|\\[(\[])*{_BEGINS}", re.IGNORECASE),
)
_OTHER = re.compile(r"\s*(?:or|and|to|[-,;/&])\s*\(?[-+]?\\?\$?\d")
_NAMED = re.compile(r"\s*\\?\(?\s*[A-Za-z]\s*=\s*")
_POWER_OF_UNIT = re.compile(r"(?<=[A-Za-z}])\^\{?\d\}?")
_NOTE = re.compile(r"<<[^<>]*>>")


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
        answer = plain(cell.rpartition("####")[2]).strip().replace("$", "")
        if number(answer) is None:
            raise UserError(f"{self.at(self.answer_column)} does not end with '#### NUMBER': {cell[-40:]!r}")
        return answer.replace(",", ""), {}

    def solution(self, row: Row) -> str:
        """Read the worked answer, without the notes for a calculator in it (`<<48/2=24>>`)."""
        return _NOTE.sub("", text_of(row[self.answer_column], self.at(self.answer_column))).strip()

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where the completion's answer equals the row's number, else 0."""
        given = final_number(text)
        return float(given is not None and given == number(example.answer))


def final_number(text: str) -> Fraction | None:
    """Find the answer in a completion: the last one marked by `####`, a box or "answer is", else the last number.

    None where that is not a number as a whole, or is one of several.
    """
    text = plain(text)
    box = last_box(text)
    marked = [match.end() for pattern in _MARKED for match in pattern.finditer(text)]
    last = max(marked, default=-1)
    if box is not None and box.start > last:  # by place, not by kind: `####` is a heading too
        return _alone(box.content or "")
    if last >= 0:
        line = text[last:].split("\n", 1)[0]
        found = next(numbers(line), None)
        return None if found is None or found.start or _OTHER.match(line, found.end) else found.value
    end = deque(numbers(text), maxlen=1)
    return end[0].value if end else None


def _alone(content: str) -> Fraction | None:
    """The only number in a box, with a name before it or a unit behind it."""
    content = _POWER_OF_UNIT.sub("", _NAMED.sub("", content, count=1).strip())
    found = list(numbers(content))
    return found[0].value if len(found) == 1 and not found[0].start else None
