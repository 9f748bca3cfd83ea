"""Text as it is written, token by token: what each adds, where characters may be spread over several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from opd.text.chat import decode

HALF = "\ufffd"
"""What stands for a character of which a part is missing."""


@dataclass
class Speech:
    """A completion that grows."""

    tokenizer: Any
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    """All that has been given out."""

    def add(self, token: int) -> str:
        """What can be read of it by now that was not before; nothing of a character that is not whole."""
        self.tokens.append(token)
        whole = decode(self.tokenizer, self.tokens)
        return "" if whole.endswith(HALF) else self._given(whole)

    def rest(self) -> str:
        """What is left in the end."""
        return self._given(decode(self.tokenizer, self.tokens))

    def _given(self, whole: str) -> str:
        new = whole[len(self.text) :] if whole.startswith(self.text) else ""
        self.text += new
        return new


def pieces(tokenizer: Any, tokens: Sequence[int], values: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """A completion in pieces that can be read, each with the largest of its tokens' values; NaN where none is known.

    A special token, which no text shows, has its name.
    """
    special, speech = set(tokenizer.all_special_ids), Speech(tokenizer)
    found: list[tuple[str, float]] = []
    open_values: list[float] = []
    for token, value in zip(tokens, values, strict=True):
        open_values.append(value)
        text = speech.add(token)
        if not text and token in special:
            text = str(tokenizer.convert_ids_to_tokens(token))
        if text:
            found.append((text, _largest(open_values)))
            open_values = []
    rest = speech.rest()
    return (*found, (rest, _largest(open_values))) if rest else tuple(found)


def _largest(values: Sequence[float]) -> float:
    return max((v for v in values if not math.isnan(v)), default=math.nan)
