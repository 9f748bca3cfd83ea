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
from opd.text.numbers import SCALE, number, numbers, plain, second
from opd.types import Example, UserError

_BEGINS = r"(?=[-+]?[ \t]?(?:\\?[$€£¥]\s?)?[-+]?(?:\.?\d|\\[dt]?frac))"
_MARKED = (
    re.compile(rf"####[ \t]*{_BEGINS}"),
    re.compile(rf"answer(?: is|:)(?:[\s*:_]|\\[(\[])*{_BEGINS}", re.IGNORECASE),
)
_OTHER = re.compile(
    r"\s*(?:[A-Za-z]+\s+)?\(?\s*(?:or|and|to|through|over|by)\s*\(?[-+]?\\?\$?\d"
    r"|\s*[-,;/&]\s*\(?[-+]?\\?\$?\d|\s+\d"
    r"|\s*(?:hours?|hrs?|h|days?|weeks?|years?|feet|ft|yards?|pounds?|lbs?|dollars?)\s*(?:and\s+)?\d"
)
"""Behind a number: another one, of which it may be only a part."""
_PART = re.compile(
    r"[A-Za-z]\d|[xXyYzZn](?![A-Za-z])|\s*[xX]\s*\d|[π√]|\s*\\(?:pi|sqrt|times|cdot|div|pm)(?![A-Za-z])"
    r"|\s*(?:\*\*|[-+*/×÷·±])\s*[\d(\\$]|/\s*[A-Za-z](?![A-Za-z])|!\s*[\d(]"
    rf"|\s*[kKMB](?![A-Za-z])|\s*{SCALE}\b|\s+and\s+(?:a\s+|one\s+)?(?:half|third|quarter)"
)
"""Behind a number: what makes a product, a sum, thousands or more of it."""
_DENIED = re.compile(r"(?:\b(?:minus|negative|not)|\\pm|[±<>≤≥≠]|-\s*\(|\d\s*or)\s*\(?\\?\$?\Z", re.IGNORECASE)
"""Before a number: what makes another one of it."""
_SIGNED = re.compile(r"\A([-+])\s+")
_SUM = re.compile(r"\A[-+\d\s$.,()*/×÷·xX]*[\d)]\s*=\s*(?=[-+$\d.\\])")
_UNIT = re.compile(
    r"(?:\s|~|\\[,;:! ]|\\?%|°|\^\s*\{?\s*\\circ\s*\}?|\\degree|\\?[$€£¥]|\\(?:text|mathrm|mbox|rm)\s*\{[^{}\d]*\}"
    r"|[A-Za-z]{2,}(?:[ /]+[A-Za-z]+)*|\.)*\Z"
)
_NAMED = re.compile(r"\s*\\?\(?\s*[A-Za-z]\s*=\s*")
_POWER_OF_UNIT = re.compile(r"(?<=[A-Za-z}])\^\{?\d\}?|\^\s*\{?\s*\\circ\s*\}?")
_SCALED = re.compile(rf"\b{SCALE}\b", re.IGNORECASE)
_NOTE = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Rows):
    """Word problems with a number for an answer; the rows are the user's own copy, or the hub's `openai/gsm8k`."""

    prompt_column: str = "question"
    answer_column: str = "answer"
    """The solution, whose last answer counts."""

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

    None where that is not a number as a whole, or is one of several. Notes for a calculator do not count.
    """
    text = plain(_NOTE.sub("", text))
    box = last_box(text)
    marked = [match.end() for pattern in _MARKED for match in pattern.finditer(text)]
    last = max(marked, default=-1)
    if box is not None and box.start > last:  # by place, not by kind: `####` is a heading too
        return _alone(box.content or "") if box.alone_in(text) else None
    if last >= 0:
        line = _worked_out(_SIGNED.sub(r"\1", text[last:].split("\n", 1)[0]))
        found = next(numbers(line), None)
        if found is None or found.start or _OTHER.match(line, found.end) or _PART.match(line, found.end):
            return None
        return found.value
    for found in deque(numbers(text), maxlen=1):
        denied = _DENIED.search(text[: found.start]) or second(text, found.start)
        if not denied and not _PART.match(text, found.end):
            return found.value
    return None


def _worked_out(line: str) -> str:
    """What a line of sums comes to: `42 + 2 = 44` is 44."""
    while chain := _SUM.match(line):
        line = line[chain.end() :]
    return line


def _alone(content: str) -> Fraction | None:
    """The only number in a box, with a name before it or a unit behind it."""
    content = _worked_out(_POWER_OF_UNIT.sub("", _NAMED.sub("", content, count=1).strip()))
    found = list(numbers(content))
    if len(found) != 1 or found[0].start or not _UNIT.match(content, found[0].end):
        return None
    return None if _PART.match(content, found[0].end) or _SCALED.search(content) else found[0].value
