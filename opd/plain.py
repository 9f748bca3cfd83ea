"""JSON of a file or an answer, read so that whoever reads it has one kind of error to tell of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

DIGITS = 300
"""Of a whole number: no float takes a longer one."""


def plain(data: bytes | str) -> Any:
    """The values that it says.

    Raises:
        ValueError: it is no JSON, nested too deep, not UTF-8, or has a whole number that no float takes.
    """
    try:
        return json.loads(data, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def flat(settings: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Full keys and values of nested settings: `{optim: {lr: 1}}` gives `optim.lr`, `1`."""
    if isinstance(settings, Mapping) and settings:
        for name, value in settings.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(settings, ensure_ascii=False, default=str).strip('"')


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)
