"""What a source is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def parts_of(source: Any) -> Iterator[Any]:
    """A source and all that it is made of."""
    yield source
    inner = [*getattr(source, "tasks", {}).values(), *getattr(source, "used", {}).values()]
    for part in [*inner, *filter(None, [getattr(source, "others", None)])]:
        yield from parts_of(part)


def stale(source: Any) -> bool:
    """Whether some of its samples are of older weights than those that are trained, by its settings."""
    return any(getattr(part, "stale", False) for part in parts_of(source))
