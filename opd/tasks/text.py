"""Prompts without a right answer: everyday instructions, or any set of questions whose answers no one checks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from opd.tasks.cells import text_of
from opd.tasks.files import Row
from opd.tasks.rows import Rows, Table
from opd.tasks.turns import Messages
from opd.types import Example, UserError


@dataclass(frozen=True, kw_only=True)
class Prompts(Rows):
    """A column of prompts, and of completions where there is one; the teacher is the only judge."""

    def verify(self, example: Example, text: str) -> None:
        """Give no score: there is nothing to compare with."""


@dataclass(frozen=True, kw_only=True)
class Passages(Rows):
    """Plain text to be predicted: `opd eval` gives its perplexity and bits per byte, and samples nothing."""

    prompt_column: str = "text"
    lead: Annotated[int, Field(ge=1)] = 8
    """Words that a model is given of each passage; it is measured on what follows them."""

    def messages(self, row: Row) -> Messages:
        """Give the first words."""
        return ({"role": "user", "content": self._parts(row)[0]},)

    def completion(self, row: Row) -> str:
        """Give the rest, with the white space that it begins with; empty where the passage is too short."""
        return self._parts(row)[1]

    def table(self, path: str, split: str, limit: int | None) -> Table:
        """Read the passages of which something is left to predict."""
        table = super().table(path, split, limit)
        keep = [i for i, row in enumerate(table.rows) if row.read(self.completion)]
        few, size = f"no more than lead={self.lead} words", len(table.keys)
        if not keep:
            raise UserError(f"{path}: none of its {size} passages has {few.removeprefix('no ')}: nothing to predict")
        if len(keep) == size:
            return table
        note = f"{size - len(keep)} of the {size} passages of {path} have {few}, and are left out"
        return Table([table.rows[i] for i in keep], [table.keys[i] for i in keep], note)

    def choices(self, example: Example) -> Sequence[str]:
        """Give the rest as the one thing to be said."""
        return [example.completion]

    def pick(self, example: Example, logprobs: Sequence[float]) -> int:
        """There is only one."""
        return 0

    def verify(self, example: Example, text: str) -> None:
        """Give no score: no other text would be wrong."""

    def _parts(self, row: Row) -> tuple[str, str]:
        text = text_of(row[self.prompt_column], self.at(self.prompt_column)).strip()
        words = re.match(rf"(?:\S+\s+){{{self.lead - 1}}}\S+", text)
        end = words.end() if words else len(text)
        return text[:end], text[end:]
