"""What a cell of a row holds: handed on whole, or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from opd.tasks.parsing import Written
from opd.types import UserError

DEEPEST = 100
"""Lists and mappings within each other; what is deeper than this is damage, and ends every reader in Python."""


def check_readable(value: Any, where: str, depth: int = 0) -> None:
    """Refuse half of a character, which no tokenizer reads, and lists within lists without end.

    JSON can hold one half of what UTF-16 writes in two.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise UserError(f"{where} holds half of a character ({half}); a text was cut within an emoji") from error
    elif isinstance(value, Mapping | list | tuple):
        if depth == DEEPEST:
            raise UserError(f"{where} is nested too deeply to be read: allowed is {DEEPEST} deep")
        for inner in (*value, *value.values()) if isinstance(value, Mapping) else value:
            check_readable(inner, where, depth + 1)


def check_sayable(value: Any, where: str) -> None:
    """Refuse numbers that a chat template would write otherwise: no numbers at all, or with other digits."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"{where} holds {value}, which is no number that JSON has")
        if isinstance(value, Written) and not _same(value):
            raise UserError(f"{where} holds {value.text[:40]}, and a template would write {value!r}; make it a text")
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            check_sayable(inner, where)


def _same(value: Written) -> bool:
    """Whether a number is what its float is written as."""
    try:
        return Decimal(value.text) == Decimal(repr(float(value)))
    except ArithmeticError:  # an exponent that no decimal has
        return False


def text_of(cell: Any, where: str) -> str:
    """The text of an answer: a text as it is, a number with the digits that were written.

    Raises:
        UserError: there is no answer (null, NaN), or it is neither text nor number; `where` names the column.
    """
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Written):
        return cell.text
    if isinstance(cell, float):
        if not math.isfinite(cell):
            raise UserError(f"{where} holds {cell}, which is no answer; leave such rows out")
        return _digits(cell)
    if isinstance(cell, int | Decimal) and not isinstance(cell, bool):
        return str(cell)
    if cell is None:
        raise UserError(f"{where} holds no answer (null); leave such rows out")
    raise UserError(f"{where} holds {repr(cell)[:60]}; allowed is a text or a number")


def texts_of(cell: Any, where: str) -> list[str]:
    """The texts of an answer, or of a list of them of which any will do; UserError where there is none.

    An empty text is none: this is how tables that are text write that there is nothing.
    """
    cells = cell if isinstance(cell, list | tuple) else [cell]
    if not cells:
        raise UserError(f"{where} holds an empty list, which is no answer; leave such rows out")
    texts = [text_of(one, where) for one in cells]
    if not all(text.strip() for text in texts):
        raise UserError(f"{where} holds an empty text, which is no answer; leave such rows out")
    return texts


def _digits(value: float) -> str:
    """A number of a table, which has not kept how it was written: without an exponent, and no `.0`."""
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")
