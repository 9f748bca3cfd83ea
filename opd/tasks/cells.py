"""The text of a cell that an answer is read from: whole, or refused."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from opd.types import UserError


class Written(float):
    """A number as a file has it: a float that knows its digits."""

    text: str

    def __new__(cls, text: str) -> Written:
        """Read it."""
        self = super().__new__(cls, text)
        self.text = text
        return self


def text_of(cell: Any, where: str) -> str:
    """The text of an answer: a text as it is, a number with the digits that were written.

    Raises:
        UserError: there is no answer (null, NaN), or it is neither text nor number; `where` names file and column.
    """
    if isinstance(cell, str):
        return cell
    if isinstance(cell, float):
        if not math.isfinite(cell):
            raise UserError(f"{where} holds {cell}, which is no answer; leave such rows out")
        return cell.text if isinstance(cell, Written) else _digits(cell)
    if isinstance(cell, int | Decimal) and not isinstance(cell, bool):
        return str(cell)
    if cell is None:
        raise UserError(f"{where} holds no answer (null); leave such rows out")
    raise UserError(f"{where} holds {repr(cell)[:60]}; allowed is a text or a number")


def texts_of(cell: Any, where: str) -> list[str]:
    """The texts of an answer, or of a list of them of which any will do; UserError where there is none."""
    if isinstance(cell, list | tuple):
        if not cell:
            raise UserError(f"{where} holds an empty list, which is no answer; leave such rows out")
        return [text_of(one, where) for one in cell]
    return [text_of(cell, where)]


def _digits(value: float) -> str:
    """A number of a table, which has not kept how it was written: without an exponent, and no `.0`."""
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")
