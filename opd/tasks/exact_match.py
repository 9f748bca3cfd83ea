"""Answers that are compared as text, from any file or dataset."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opd.tasks.cells import texts_of
from opd.tasks.files import Row
from opd.tasks.rows import Rows
from opd.text.numbers import number, numbers, plain
from opd.types import Example, UserError

Normalize = Literal["none", "space", "words"]
_SIGNED = re.compile(r"(?<![\w)\]%.])(?<![\w)\]%] )-\s?(?:\\?\$)?(?=\.?\d)")
_GROUPED = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,]*\d)")
_NOT_WORDS = re.compile(
    rf"(?!(?<![\w)\]%.])-\.?\d)(?!(?<=\d)[.,/]\d)(?!(?<![\w.])\.\d)[{re.escape(string.punctuation)}]"
)
"""Punctuation, but for the signs, points and bars of numbers."""


@dataclass(frozen=True, kw_only=True)
class ExactMatch(Rows):
    """Right where the completion, or what follows its last `marker`, equals one of the row's answers."""

    answer_column: str = "answer"
    """A text, a number, or a list of them of which any will do."""
    marker: str = ""
    """Only what follows its last occurrence is compared, to the end of that line; without it a completion is wrong.
    Empty compares the whole completion."""
    normalize: Normalize = "space"
    """`none`: as it is; `space`: white space joined and cut off at the ends; `words`: letter case, punctuation and the
    articles a, an and the left out as well, as for SQuAD; a number keeps its sign, its point and its bar."""
    within: bool = False
    """Right wherever an answer stands in what is compared, with no letter or digit next to it."""

    def columns(self) -> tuple[str, ...]:
        """Name the columns that must be there."""
        return (*super().columns(), self.answer_column)

    def answer(self, row: Row) -> tuple[str, Mapping[str, Any]]:
        """Read the row's answers: the first one, and all of them in `meta`."""
        at = self.at(self.answer_column)
        answers = texts_of(row[self.answer_column], at)
        if empty := [answer for answer in answers if not normalize(answer, self.normalize)]:
            raise UserError(f"{at} holds {empty[0]!r}, of which normalize={self.normalize} leaves nothing to compare")
        return answers[0], {"answers": answers}

    def solution(self, row: Row) -> str:
        """Give the first answer as it would be accepted."""
        return f"{self.marker} {self.answer(row)[0]}".strip()

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where the completion's answer is one of the row's, else 0."""
        if self.marker:
            _, found, text = text.rpartition(self.marker)
            text = (text.strip() or "\n").splitlines()[0] if found else ""
        given = normalize(text, self.normalize)
        answers = [normalize(answer, self.normalize) for answer in example.meta["answers"]]
        return float(any(found_in(given, a) if self.within else given == a for a in answers))


def found_in(text: str, answer: str) -> bool:
    """Whether a text holds an answer that is not a part of a longer word or number."""
    value = number(answer)
    if value is not None:
        return any(found.value == value for found in numbers(plain(text)))
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text) is not None


def normalize(text: str, how: Normalize) -> str:
    """Bring a text into the form in which it is compared."""
    if how == "none":
        return text
    if how == "words":
        text = _SIGNED.sub("-", plain(text.casefold()))
        text = _GROUPED.sub(lambda found: found[0].replace(",", ""), text)
        text = re.sub(r"\b(a|an|the)\b", " ", _NOT_WORDS.sub(" ", text))
    return " ".join(text.split())
