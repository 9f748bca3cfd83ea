"""Values of JSON, read without loss: numbers keep their digits, and no name has two values."""

from __future__ import annotations

import json
from collections.abc import Iterator
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

    def __str__(self) -> str:
        """The digits of the file."""
        return self.text


class NotJsonError(UserError):
    """A text is no JSON at all."""


class _TwiceError(ValueError):
    """An object has two values under one name."""


def parsed(text: str, where: str) -> Any:
    """The value that a text is.

    Raises:
        UserError: it is no JSON, a part of it would be lost, or it cannot be held; `where` names it.
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(error, where) from error


def items(text: str, where: str) -> Iterator[Any]:
    """The values of the list that a text is, one by one, so that one that cannot be read is named by its number."""
    at, number = _after_space(text, text.index("[") + 1), 0
    more = text[at : at + 1] != "]"
    while more:
        number += 1
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _unreadable(error, f"{where}, item {number}") from error
        yield value
        at = _after_space(text, at)
        more = text[at : at + 1] == ","
        at = _after_space(text, at + 1) if more else at
    if text[at : at + 1] != "]" or text[at + 1 :].strip():
        raise UserError(f"{where} is not JSON: neither a comma nor the end of the file follows item {number}")


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _unreadable(error: ValueError | RecursionError, where: str) -> UserError:
    if isinstance(error, RecursionError):
        return UserError(f"{where} is nested too deeply to be read")
    if isinstance(error, json.JSONDecodeError):
        return NotJsonError(f"{where} is not JSON: {error.msg}")
    if isinstance(error, _TwiceError):
        return UserError(f"{where} has two values under one name, {str(error)!r}; keep one of them")
    return UserError(f"{where} holds a number that cannot be read: {str(error).split(';')[0]}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return out


_DECODER = json.JSONDecoder(parse_float=Written, object_pairs_hook=_object)
