r"""Boxes around final answers: `\boxed{5}`, `\boxed {5}`, `\boxed 5` and `\fbox{5}`."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from opd.text.numbers import SCALE

_BOX = re.compile(r"\\f?box(?:ed)?(?![A-Za-z])\s*")
_BARE = re.compile(r"(?:\\[A-Za-z]+|[^\s$\\{}])[^\s$,;{}]*")
_BEFORE = re.compile(r"(?:[-+\u2212\u00b1/^]|\\(?:pm|times|cdot|div)\s*|[\d}]\s*\$?,?\s*(?:and|or)\s*)\$?\Z")
_BEHIND = re.compile(
    rf"\s*(?:\^|\{{|\d|\\(?:times|cdot|div|pm|frac|sqrt|pi)(?![A-Za-z])|[-+/*×÷]\s*[\d\\]"
    rf"|\$?\s*(?:\\text\s*\{{\s*)?{SCALE}\b)"
)


@dataclass(frozen=True)
class Box:
    """A box in a text."""

    start: int
    end: int
    content: str | None
    """What is inside; None where it is cut off."""

    def alone_in(self, text: str) -> bool:
        """Whether nothing beside it in its text makes another value of it: a sign, a power, a factor, another box."""
        return not _BEFORE.search(text[: self.start]) and not _BEHIND.match(text, self.end)


def last_box(text: str) -> Box | None:
    """The last box of a text, whole or cut off; None where there is none."""
    last = deque(_BOX.finditer(text), maxlen=1)
    if not last:
        return None
    found = last[0]
    if text[found.end() : found.end() + 1] != "{":
        bare = _BARE.match(text, found.end())
        return Box(found.start(), bare.end() if bare else found.end(), bare[0].rstrip(".") if bare else None)
    depth = 0
    for i in range(found.end(), len(text)):
        if text[i - 1] == "\\" and text[i] in "{}":
            continue  # a brace that is written, not one that groups
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return Box(found.start(), i + 1, text[found.end() + 1 : i])
    return Box(found.start(), len(text), None)


def last_boxed(text: str) -> str | None:
    """What is inside the last box; None where there is none or it is cut off."""
    box = last_box(text)
    return None if box is None else box.content
