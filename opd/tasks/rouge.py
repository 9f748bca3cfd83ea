"""Instructions with reference answers, scored by Rouge-L, as MiniLLM scores Dolly (Gu et al., ICLR 2024)."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opd.extras import install
from opd.tasks.cells import text_of, texts_of
from opd.tasks.files import Row
from opd.tasks.rows import Rows
from opd.tasks.turns import Messages
from opd.types import Example, Split, UserError

PLACE = re.compile(r"{(instruction|input)}")


@dataclass(frozen=True, kw_only=True)
class RougeL(Rows):
    """Scored by the words that a completion has in common with a reference, in their order: an F1 in [0, 1].

    Lin, "ROUGE", 2004: twice the longest common subsequence of words over the words of both texts, stemmed; the best of
    several references counts.
    """

    prompt_column: str = "instruction"
    input_column: str | None = None
    """Column of what the instruction is about; an empty cell is none."""
    answer_column: str = "output"
    """A text, or a list of them."""
    wording: str = "{instruction}"
    """What the model reads; `{instruction}` stands for the instruction."""
    wording_with_input: str = "{instruction}\n\n{input}"
    """What it reads where there is an input, `{input}`."""

    def __post_init__(self) -> None:
        """Refuse a wording that leaves the instruction out."""
        super().__post_init__()
        for name, places in (("wording", ("instruction",)), ("wording_with_input", ("instruction", "input"))):
            for place in places:
                if f"{{{place}}}" not in getattr(self, name):
                    raise ValueError(f"{name}={getattr(self, name)!r}: allowed is a text with {{{place}}} in it")

    def columns(self) -> tuple[str, ...]:
        """Name the columns that must be there."""
        return (*super().columns(), self.answer_column, *([self.input_column] if self.input_column else []))

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; UserError where rouge-score is missing, before any model is loaded."""
        if importlib.util.find_spec("rouge_score") is None:
            raise UserError(f"it needs rouge-score, which is not installed:  {install('tasks')}")
        return super().examples(split)

    def messages(self, row: Row) -> Messages:
        """Word the instruction, with its input where there is one."""
        *before, last = super().messages(row)
        cell = row[self.input_column] if self.input_column else None
        given = "" if cell is None else text_of(cell, self.at(self.input_column or "")).strip()
        words = {"instruction": last["content"], "input": given}
        text = PLACE.sub(lambda place: words[place[1]], self.wording_with_input if given else self.wording)
        return (*before, {**last, "content": text})

    def answer(self, row: Row) -> tuple[str, Mapping[str, Any]]:
        """Read the references: the first one, and all of them in `meta`."""
        answers = texts_of(row[self.answer_column], self.at(self.answer_column))
        return answers[0], {"answers": answers}

    def solution(self, row: Row) -> str:
        """Give the first reference."""
        return self.answer(row)[0]

    def verify(self, example: Example, text: str) -> float:
        """Give the best Rouge-L F1 of a completion against any reference."""
        return max(rouge_l(text, answer) for answer in example.meta["answers"])


def rouge_l(text: str, reference: str) -> float:
    """Rouge-L F1 of two texts, stemmed, in [0, 1]; 0 where one of them has no words."""
    return float(_scorer().score(target=reference, prediction=text)["rougeL"].fmeasure)


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)
