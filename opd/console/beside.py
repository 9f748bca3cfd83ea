"""What several models have answered, side by side on a terminal, one after the other elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opd.hints import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

KEEP = "\n\t"
NARROWEST = 28
"""Columns of terminal that an answer needs beside others."""
LEGEND = "orange: the teacher finds the token at least 1 nat less likely than who wrote it; underlined: 3"


@dataclass(frozen=True)
class Answer:
    """What one model has answered."""

    model: str
    """How people call it."""
    text: str
    tokens: int | None = None
    """None while it is being written."""
    truncated: bool = False
    pieces: Sequence[tuple[str, float]] | None = None
    """The text piece by piece with `log mu - log q`, nats; None: no teacher was asked."""
    disagreement: float | None = None
    """Mean of that over its tokens; None where the teacher says nothing."""

    @property
    def title(self) -> str:
        """Its name and figures."""
        if self.tokens is None:
            return printable(self.model)
        far = (
            ""
            if self.disagreement is None
            else f", {round(self.disagreement, 3) + 0.0:.3f} nats a token from the teacher"
        )
        return printable(f"{self.model}: {self.tokens} tokens{' (cut)' if self.truncated else ''}{far}")


def mean(values: Sequence[float]) -> float | None:
    """Of those that are known."""
    known = [v for v in values if not math.isnan(v)]
    return math.fsum(known) / len(known) if known else None


def plain(answers: Sequence[Answer]) -> str:
    """All of them as text; of one alone its words."""
    if len(answers) == 1:
        return printable(answers[0].text, keep=KEEP)
    return "\n\n".join(f"{a.title}\n{printable(a.text, keep=KEEP)}" for a in answers)


def drawn(answers: Sequence[Answer], width: int) -> RenderableType:
    """All of them side by side, or one below the other where that is too narrow."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from opd.console.panel import LABEL

    shown = [(Text(a.title, LABEL), coloured(a)) for a in answers]
    if width < NARROWEST * len(answers):
        return Group(*(part for title, text in shown for part in (title, text, Text(""))))
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in answers:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*(title for title, _ in shown))
    table.add_row(*(text for _, text in shown))
    return table


def coloured(answer: Answer) -> Text:
    """Its text, as far as the teacher was asked in the colours of its disagreement."""
    from rich.text import Text

    from opd.console.panel import surprise

    if answer.pieces is None:
        return Text(printable(answer.text, keep=KEEP))
    return Text.assemble(*((printable(piece, keep=KEEP), surprise(gap)) for piece, gap in answer.pieces))
