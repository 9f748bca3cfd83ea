"""Prompts without a right answer: everyday instructions, or any set of questions whose answers no one checks."""

from __future__ import annotations

from dataclasses import dataclass

from opd.tasks.rows import Rows
from opd.types import Example


@dataclass(frozen=True, kw_only=True)
class Prompts(Rows):
    """A column of prompts, and of completions where there is one; the teacher is the only judge."""

    def verify(self, example: Example, text: str) -> None:
        """Give no score: there is nothing to compare with."""
