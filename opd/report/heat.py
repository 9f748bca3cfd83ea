"""Completions as heat maps: each token a coloured element, and what the models said of it for the page's script."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

from opd.report.colors import EDGES, token_class
from opd.report.samples import Cell, anchor
from opd.run.transcripts import Token

VISIBLE = {"\n": "↵\n", "\t": "⇥\t", "\r": "␍", "": "∅"}
"""What cannot be seen."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def visible(text: str) -> str:
    """A token's text with marks for what cannot be seen; line ends stay."""
    return VISIBLE[""] if not text else "".join(VISIBLE.get(c, c) for c in text)


def without_controls(page: str) -> str:
    """A page with symbols for the characters that HTML may not hold, or that a terminal would obey."""
    return _CONTROL.sub(lambda match: _symbol(ord(match[0])), page)


def _symbol(code: int) -> str:
    """The picture of an ASCII control character; others have none."""
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\ufffd"


def token_elements(cell: Cell, sample: int) -> str:
    """HTML of a completion's tokens."""
    parts = []
    for place, token in enumerate(cell.samples[sample].tokens):
        name = token_class(token.disagreement) if token.trained else "o"
        where = anchor(cell.run, cell.step, sample, place)
        parts.append(f"<span class={name} id={where}>{escape(visible(token.text))}</span>")
    return "".join(parts)


def token_facts(token: Token) -> list[Any]:
    """What is said of a token: text, log mu, log q, whether it is trained, and the teacher's alternatives."""
    told = [[text, number(value)] for text, value in token.alternatives]
    return [token.text, number(token.logprob), number(token.teacher_logprob), int(token.trained), told]


def facts(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    """`token_facts` of every completion on the page, by the beginning of its tokens' names."""
    return {
        f"r{cell.run}-s{cell.step}-c{i}": [token_facts(token) for token in t.tokens]
        for cell in cells
        for i, t in enumerate(cell.samples)
    }


def number(value: float) -> float | None:
    """To a ten-thousandth of a nat; None for what is no number."""
    return round(value, 4) + 0.0 if math.isfinite(value) else None


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def legend() -> list[tuple[str, str]]:
    """Class and range in nats of every colour, from what the teacher likes better to what it likes less."""
    numbers = [f"{edge:g}" for edge in EDGES]
    outer = [f"{a} to {b}" for a, b in pairwise(numbers)] + [f"{numbers[-1]} and beyond"]
    less = [(f"p{i}", f"+{text}") for i, text in enumerate(outer, start=1)]
    more = [(f"n{i}", f"−{text}") for i, text in enumerate(outer, start=1)]
    return [*reversed(more), ("z", f"within {numbers[0]}"), *less]
