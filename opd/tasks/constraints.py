"""Rules that an answer's form can be asked to keep, each checked by a few lines of code.

In the manner of IFEval (Zhou et al., 2023): what a person would ask for, and a program can tell. Letter case of words
and phrases never counts, so that rules about case go together with all others.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opd.text.prose import paragraphs, seen, sentences, uses, words

Params = Mapping[str, Any]
_COUNTED = ("exactly", "at least", "at most")
_INCLUDED = ("today", "simple", "time", "first", "people", "always", "small", "change", "important", "home")
_EXCLUDED = ("very", "really", "good", "because", "also", "great", "however", "many")
_OPENINGS = ("Here is what I would do", "Short answer", "Thank you for asking", "Let us begin")
_CLOSINGS = ("That is all.", "I hope this helps.", "Is there anything else?", "Over to you.")
_MARK = re.compile(r"(?<![\w*])(\*{1,3})(?=[^*\n]*[^\W_])[^\s*](?:[^*\n]*[^\s*])?\1(?![\w*])")  # no product of 2*3*4
_BULLET = re.compile(r"^[ \t]*[-*][ \t]+(?=.*[^\W_])", re.MULTILINE)
"""With IFEval's two signs, which the prompt names; a line of signs alone parts a text."""
_TITLE = re.compile(
    r"(?:^[ \t#*_\"]*(?:title:[ \t*_]*)?|(?<![\w<])(?=<<[^\s<>](?:[^<>\n]*[^\s<>])?>>))<<([^<>\n]+)>>(?![\w>])",
    re.IGNORECASE | re.MULTILINE,
)
"""At the beginning of a line, or close to its brackets, so that no shifts of bits are one."""
_POSTSCRIPT = re.compile(r"[*_#>\s\"“(]*p\.\s?s\.(?=.*[^\W_])", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """One kind of rule: its wording, its check, and what it needs."""

    say: str
    """The sentence in the prompt; `{name}` stands for a parameter."""
    check: Callable[[str, Params], bool]
    """Whether a text that holds a word keeps it; it is given as `seen`."""
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What each parameter is drawn from."""
    claims: frozenset[str] = frozenset()
    """Sides of the answer that it settles: two rules go together where they share none."""
    raw: bool = False
    """Whether it looks at the characters themselves; it then has to refuse a text without a word."""

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters."""
        return {name: values[int(rng.integers(len(values)))] for name, values in self.choices.items()}


def kept(kind: str, params: Params, text: str) -> bool:
    """Whether a text keeps a rule; one without a word keeps none (but for JSON, which may be empty)."""
    rule, text = KINDS[kind], text.strip()
    if rule.raw:
        return rule.check(text, params)
    text = seen(text)
    return bool(words(text)) and rule.check(text, params)


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or list and nothing else; a code fence around it is let pass.

    No name may have two values, and no number be one that is none (NaN) or too large to be held (1e999).
    """
    if len(text) > 6 and text.startswith("```") and text.endswith("```"):
        text = re.sub(r"\A[ \t]*json\b", "", text[3:-3], flags=re.IGNORECASE)
    try:
        return isinstance(_JSON.decode(text.strip()), dict | list)
    except (ValueError, RecursionError):  # brackets nested without end
        return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name has two values")
    return dict(pairs)


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} cannot be held")
    return float(number)


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)


def counted(found: int, params: Params) -> bool:
    """Whether a count is as the rule says."""
    wanted = int(params["count"])
    return {"exactly": found == wanted, "at least": found >= wanted, "at most": found <= wanted}[params["how"]]


def _starts(text: str, p: Params) -> bool:
    return re.match(rf"{re.escape(p['phrase'])}(?!\w)", text, re.IGNORECASE) is not None


def _ends(text: str, p: Params) -> bool:
    return re.search(rf"(?<!\w){re.escape(p['phrase'])}\Z", text, re.IGNORECASE) is not None


def _quoted(text: str, p: Params) -> bool:
    """Between quotation marks as a whole: the first is closed by the last, and those within by each other."""
    if len(text) < 3 or text[0] not in '"“' or text[-1] not in '"”':
        return False
    depth = 1
    for at in (i for i, c in enumerate(text[:-1]) if i and c in '"“”'):
        depth += _opening(text, at)
        if depth < 1:
            return False
    return depth == 1


def _opening(text: str, at: int) -> int:
    """1 for a quotation mark that opens, 0 for one that begins a further paragraph, -1 for any other."""
    before, behind = text[at - 1], text[at + 1]
    opens = text[at] == "“" or (text[at] == '"' and before in ' \t\n([{—-"“' and not behind.isspace())
    return -1 if not opens else int(text[max(0, at - 2) : at] != "\n\n")


def _sign(name: str, text: str) -> bool:
    """Whether a text holds a sign that Unicode names so."""
    return any(name in unicodedata.name(c, "") for c in set(text) if not c.isalpha())


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
        claims=_claims("layout", "length", "start", "end", "commas", "marks", "case"), raw=True,
    ),
    "include": Kind('Use the word "{word}".', lambda t, p: uses(t, p["word"]) > 0, {"word": _INCLUDED}),
    "repeat": Kind(
        'Use the word "{word}" at least {count} times.', lambda t, p: uses(t, p["word"]) >= p["count"],
        {"word": ("you", "can", "one", "day"), "count": (2, 3)},
    ),
    "exclude": Kind('Do not use the word "{word}".', lambda t, p: not uses(t, p["word"]), {"word": _EXCLUDED}),
    "lower": Kind(
        "Write in lower case only: no capital letters.", lambda t, p: t.islower(), claims=_claims("case"), raw=True,
    ),
    "upper": Kind("WRITE IN CAPITAL LETTERS ONLY.", lambda t, p: t.isupper(), claims=_claims("case"), raw=True),
    "commas": Kind("Do not use any commas.", lambda t, p: not _sign("COMMA", t), claims=_claims("commas")),
    "digits": Kind("Do not use any digits.", lambda t, p: not any(unicodedata.category(c)[0] == "N" for c in t)),
    "exclamation": Kind("Do not use any exclamation marks.", lambda t, p: not _sign("EXCLAMATION", t)),
    "starts": Kind('Begin with the words "{phrase}".', _starts, {"phrase": _OPENINGS}, _claims("start")),
    "ends": Kind('End with the words "{phrase}" and nothing after them.', _ends, {"phrase": _CLOSINGS}, _claims("end")),
    "title": Kind(
        "Give the answer a title between double angle brackets, such as <<a title>>.",
        lambda t, p: any(map(words, _TITLE.findall(t))), claims=_claims("start"),
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
        lambda t, p: _POSTSCRIPT.match(t.split("\n")[-1]) is not None, claims=_claims("end"),
    ),
}  # fmt: skip
"""All rules by name, in the order in which a prompt tells them."""
