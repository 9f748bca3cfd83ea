"""Questions with answers to choose from, as in MMLU or ARC: the likeliest one is the model's answer."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opd.tasks.cells import text_of, texts_of
from opd.tasks.files import Row
from opd.tasks.rows import Rows
from opd.tasks.turns import Messages, messages_of
from opd.types import Example, UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BEGINS = re.compile(r"[\s(\[*]*([A-Za-z])(?=[).:\]*]|\s*\n|\s*\Z)")
"""A letter at the beginning that is no word of a sentence."""
_SAID = re.compile(r"(?:\b(?i:answer(?: is:?|:))|\\boxed\{)[\s(\[*$]*([A-Z])(?=[).:\]*$}\s]|\Z)(?!\s+[a-z])")
_ALSO = re.compile(r"(?:or|and|,|/|&)\s|[a-z]\b[).:]?(?:\s|\Z)")
"""What goes on to another letter."""


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Rows):
    """`opd eval` compares log-probs and samples nothing; in training, what a completion begins with counts."""

    prompt_column: str = "question"
    choices_column: str | tuple[str, ...] = "choices"
    """A list of texts, a mapping of each label to its text, or one of `text` and `label`, each a list; or the columns
    that hold a choice each: `[A, B, C, D]`."""
    answer_column: str = "answer"
    """The right one's place, counted from 0, or its label, its letter or its text."""
    letters: bool = True
    """Show the choices in the prompt, and choose among their letters; else their texts are compared, unseen."""
    prefix: str = ""
    """Put before what is compared: a space where the prompt is plain text that ends without one."""
    per_byte: bool = False
    """Compare log-probs divided by the bytes of the text, so that long ones are not at a disadvantage."""

    def columns(self) -> tuple[str, ...]:
        """Name the columns that must be there."""
        return (*super().columns(), *self._columns, self.answer_column)

    def messages(self, row: Row) -> Messages:
        """Read the prompt, with the choices below it where they are shown."""
        *before, last = messages_of(row[self.prompt_column], self.at(self.prompt_column))
        texts, _ = self._choices(row)
        shown = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))
        content = last["content"] + ("\n" + shown if self.letters else "") + self.suffix
        return (*before, {**last, "content": content})

    def answer(self, row: Row) -> tuple[str, Mapping[str, Any]]:
        """Read the right choice: its letter or text, and in `meta` all that are compared, and the texts."""
        texts, labels = self._choices(row)
        place = self._place(row[self.answer_column], texts, labels)
        compared = list(LETTERS[: len(texts)]) if self.letters else texts
        return compared[place], {"choices": compared, "texts": texts, "place": place}

    def solution(self, row: Row) -> str:
        """Give the right choice."""
        return self.prefix + self.answer(row)[0]

    def choices(self, example: Example) -> Sequence[str]:
        """Give the completions that are compared."""
        return [self.prefix + choice for choice in example.meta["choices"]]

    def pick(self, example: Example, logprobs: Sequence[float]) -> int:
        """Choose by the log-prob of each choice, the first of equals."""
        sizes = [len(choice.encode()) if self.per_byte else 1 for choice in self.choices(example)]
        return max(range(len(sizes)), key=lambda i: logprobs[i] / sizes[i])

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where a completion is the right choice, or names its letter, last, and no other choice, else 0."""
        given, texts = text.strip(), [choice.strip() for choice in example.meta["texts"]]
        right = texts[example.meta["place"]]
        if given in (example.answer, right):
            return 1.0
        named = (_BEGINS.match(given) or next(iter(deque(_SAID.finditer(given), 1)), None)) if self.letters else None
        if named is None or named[1].upper() != example.answer:
            return 0.0
        rest = given[named.end() :].strip(" \n.):*$}]").casefold()
        others = [other.casefold() for other in texts if other != right]
        also = _ALSO.match(rest) is not None or any(rest == other or rest.startswith(f"{other} ") for other in others)
        return float(not also)

    @property
    def _columns(self) -> tuple[str, ...]:
        return (self.choices_column,) if isinstance(self.choices_column, str) else tuple(self.choices_column)

    def _choices(self, row: Row) -> tuple[list[str], list[str]]:
        """Read the texts of a row's choices, and their labels."""
        if not isinstance(self.choices_column, str):
            empty = [row[name] in (None, "") for name in self.choices_column]
            if (count := empty.index(True) if any(empty) else len(empty)) < empty.count(False):
                column = self.choices_column[count]
                raise UserError(
                    f"{self.at(column)} is empty before others: the letters would be those of other choices"
                )
            cell: Any = [row[name] for name in self.choices_column[:count]]
        else:
            cell = row[self.choices_column]
        named = isinstance(cell, Mapping)
        if named and not {"text", "label"} <= set(cell):
            cell = {k: v for k, v in cell.items() if v is not None}  # parquet has all labels of all rows
            cell = {"text": list(cell.values()), "label": list(cell)}
        texts = cell["text"] if named else cell
        labels = cell["label"] if named else ()
        whole = isinstance(texts, list | tuple) and isinstance(labels, list | tuple)
        at = ", ".join(map(self.at, self._columns))
        if not whole or not 2 <= len(texts) <= len(LETTERS):
            wanted = f"2 to {len(LETTERS)} texts"
        elif named and len(labels) != len(texts):
            wanted = "a label for each text"
        else:
            return texts_of(texts, at), [text_of(label, at) for label in labels]
        raise UserError(f"{at} must hold {wanted}, not {repr(cell)[:60]}")

    def _place(self, cell: Any, texts: Sequence[str], labels: Sequence[str]) -> int:
        """Find the right choice."""
        place = text_of(cell, self.at(self.answer_column))
        words = (texts, LETTERS[: len(texts)]) if isinstance(cell, str) else ()  # a number is a label or a place
        for names in (labels, *words):
            if place in names:
                if list(names).count(place) > 1:
                    raise UserError(f"{self.at(self.answer_column)} holds {place[:40]!r}, which several choices are")
                return list(names).index(place)
        places = [str(i) for i in range(len(texts))]
        if place in places:
            return places.index(place)
        raise UserError(f"{self.at(self.answer_column)} holds no choice's place, label or text but {repr(cell)[:60]}")
