"""Rules that an answer's form can be asked to keep, each checked by a few lines of code.

In the manner of IFEval (Zhou et al., 2023): what a person would ask for, and a program can tell. Letter case of words
and phrases never counts, so that rules about case go together with all others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Params = Mapping[str, Any]
_COUNTED = ("exactly", "at least", "at most")
_INCLUDED = ("today", "simple", "time", "first", "people", "always", "small", "change", "important", "home")
_EXCLUDED = ("very", "really", "good", "because", "also", "great", "however", "many")
_OPENINGS = ("Here is what I would do", "Short answer", "Thank you for asking", "Let us begin")
_CLOSINGS = ("That is all.", "I hope this helps.", "Is there anything else?", "Over to you.")
_MARK = re.compile(r"(?<![\w*])\*{1,2}[^\s*][^*\n]*\*{1,2}(?![\w*])")  # not the products of 2*3*4
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+\S", re.MULTILINE)
_TITLE = re.compile(r"<<([^<>\n]+)>>")
_FENCE = re.compile(r"\A```[ \t]*(?:json)?[ \t]*\n(.*)\n[ \t]*```\Z", re.DOTALL | re.IGNORECASE)
_END = re.compile(r"([.!?…])[.!?…]*([\"'”’»)\]*_]*)\s+")
"""The end of a sentence, perhaps: the mark, and the quotes and brackets that it closes."""
_TITLES = frozenset("mr mrs ms dr prof st mt gen col lt capt sgt rev hon vs e.g i.e cf fig ph.d".split())  # noqa: SIM905
_FIRMS = frozenset("inc ltd co corp jr sr etc".split())  # noqa: SIM905
_BEGINS = re.compile(r"(?:he|she|it|they|we|you|i|the|this|that|these|but|however|so|and|our)\b", re.IGNORECASE)
_NAME = re.compile(r"(?:[A-Z]\.\s*)*[A-Z][a-z]")
_NEAR = 24  # characters around a full stop that are looked at


@dataclass(frozen=True)
class Kind:
    """One kind of rule: its wording, its check, and what it needs."""

    say: str
    """The sentence in the prompt; `{name}` stands for a parameter."""
    check: Callable[[str, Params], bool]
    """Whether a text, stripped and not empty, keeps it."""
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What each parameter is drawn from."""
    claims: frozenset[str] = frozenset()
    """Sides of the answer that it settles: two rules go together where they share none."""

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters."""
        return {name: values[int(rng.integers(len(values)))] for name, values in self.choices.items()}


def kept(kind: str, params: Params, text: str) -> bool:
    """Whether a text keeps a rule; an empty one keeps none."""
    text = text.replace("\r\n", "\n").strip()
    return bool(text) and KINDS[kind].check(text, params)


def words(text: str) -> list[str]:
    """Words in lower case, apostrophes and hyphens inside them included."""
    return re.findall(r"\w+(?:['’-]\w+)*", text.lower())  # the apostrophe of typesetters


def uses(text: str, word: str) -> int:
    """How often a word stands in a text, also as a part of `word's`, `word-like` or `_word_`, but not of `words`."""
    return len(re.findall(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", text, re.IGNORECASE))


def sentences(text: str) -> int:
    """How many pieces that hold a word the ends of sentences, and line ends, leave.

    A full stop, with any quotes and brackets behind it, ends one where no small letter follows, but not after a title
    (Dr.), an initial (J. Smith) or a short form that more follows (e.g.), nor after Inc. and the like in mid-sentence.
    """
    return sum(bool(words(piece)) for piece in re.split(r"\0|\n+", _END.sub(_parted, text)))


def _parted(end: re.Match[str]) -> str:
    before = end.string[max(0, end.start() - _NEAR) : end.start()]
    follows = end.string[end.end() : end.end() + _NEAR]
    word = re.split(r"[^\w.'’-]", before)[-1]
    if follows[:1].islower() and (end[1] == "." or end[2]):
        return end[0]
    if end[1] == "." and not end[2]:
        initial = len(word) == 1 and word.isupper() and word != "I" and _NAME.match(follows)
        if initial or word.lower() in _TITLES or (word.lower() in _FIRMS and not _BEGINS.match(follows)):
            return end[0]
    return end[0] + "\0"


def paragraphs(text: str) -> int:
    """How many pieces blank lines leave."""
    return sum(bool(piece.strip()) for piece in re.split(r"\n[ \t]*\n", text))


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or list and nothing else; a code fence around it is let pass."""
    fenced = _FENCE.match(text)

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        return isinstance(json.loads(fenced[1] if fenced else text, parse_constant=refuse), dict | list)
    except (ValueError, RecursionError):  # brackets nested without end
        return False


def counted(found: int, params: Params) -> bool:
    """Whether a count is as the rule says."""
    wanted = int(params["count"])
    return {"exactly": found == wanted, "at least": found >= wanted, "at most": found <= wanted}[params["how"]]


def _starts(text: str, p: Params) -> bool:
    return re.match(rf"{re.escape(p['phrase'])}(?!\w)", text, re.IGNORECASE) is not None


def _ends(text: str, p: Params) -> bool:
    return re.search(rf"(?<!\w){re.escape(p['phrase'])}\Z", text, re.IGNORECASE) is not None


def _quoted(text: str, p: Params) -> bool:
    """Between quotation marks as a whole, and not two quotes side by side."""
    if len(text) < 3 or text[0] not in '"“' or text[-1] not in '"”':
        return False
    inner = re.search(r'["“”]', text[1:-1])
    return inner is None or inner[0] == "“" or (inner[0] == '"' and not text[inner.start()].strip(" \t\n([{—-"))


def _counts(*numbers: int, how: tuple[str, ...] = _COUNTED) -> dict[str, tuple[Any, ...]]:
    return {"how": how, "count": numbers}


def _claims(*sides: str) -> frozenset[str]:
    return frozenset(sides)


KINDS: Mapping[str, Kind] = {
    "words": Kind(
        "Write {how} {count} words.", lambda t, p: counted(len(words(t)), p),
        _counts(20, 30, 40, 50, 60, 80, 100, how=("at least", "at most")), _claims("length"),
    ),
    "sentences": Kind(
        "Write {how} {count} sentences.", lambda t, p: counted(sentences(t), p), _counts(2, 3, 4, 5),
        _claims("layout", "start", "end"),
    ),
    "bullets": Kind(
        "Give {how} {count} bullet points, each on a line that begins with a hyphen or an asterisk.",
        lambda t, p: counted(len(_BULLET.findall(t)), p), _counts(2, 3, 4, 5, how=("exactly", "at least")),
        _claims("layout"),
    ),
    "paragraphs": Kind(
        "Write exactly {count} paragraphs, with a blank line between them.",
        lambda t, p: paragraphs(t) == p["count"], {"count": (2, 3, 4)}, _claims("layout", "start", "end"),
    ),
    "json": Kind(
        "Answer with valid JSON and nothing else: one object or one list.", lambda t, p: is_json(t),
        claims=_claims("layout", "length", "start", "end", "commas", "marks", "case"),
    ),
    "include": Kind('Use the word "{word}".', lambda t, p: uses(t, p["word"]) > 0, {"word": _INCLUDED}),
    "repeat": Kind(
        'Use the word "{word}" at least {count} times.', lambda t, p: uses(t, p["word"]) >= p["count"],
        {"word": ("you", "can", "one", "day"), "count": (2, 3)},
    ),
    "exclude": Kind('Do not use the word "{word}".', lambda t, p: not uses(t, p["word"]), {"word": _EXCLUDED}),
    "lower": Kind("Write in lower case only: no capital letters.", lambda t, p: t == t.lower(), claims=_claims("case")),
    "upper": Kind("WRITE IN CAPITAL LETTERS ONLY.", lambda t, p: t == t.upper(), claims=_claims("case")),
    "commas": Kind("Do not use any commas.", lambda t, p: not set(t) & set(",，、،"), claims=_claims("commas")),
    "digits": Kind("Do not use any digits.", lambda t, p: not any(c.isdigit() for c in t)),
    "exclamation": Kind("Do not use any exclamation marks.", lambda t, p: not set(t) & set("!！")),
    "starts": Kind('Begin with the words "{phrase}".', _starts, {"phrase": _OPENINGS}, _claims("start")),
    "ends": Kind('End with the words "{phrase}" and nothing after them.', _ends, {"phrase": _CLOSINGS}, _claims("end")),
    "title": Kind(
        "Give the answer a title between double angle brackets, such as <<a title>>.",
        lambda t, p: any(map(str.strip, _TITLE.findall(t))), claims=_claims("start"),
    ),
    "quoted": Kind(
        "Put the whole answer between double quotation marks.",
        _quoted, claims=_claims("start", "end", "layout"),
    ),
    "marked": Kind(
        "Mark at least {count} words or phrases with *asterisks* around them.",
        lambda t, p: len(_MARK.findall(t)) >= p["count"], {"count": (1, 2, 3)}, _claims("marks"),
    ),
    "postscript": Kind(
        'End with a line of its own that begins with "P.S."',
        lambda t, p: t.splitlines()[-1].strip().lower().startswith("p.s."), claims=_claims("end"),
    ),
}  # fmt: skip
"""All rules by name, in the order in which a prompt tells them."""
