"""Prose as its reader sees it: words, sentences and paragraphs, counted as a person would."""

from __future__ import annotations

import itertools
import re
import unicodedata

_FILLERS = frozenset("\u115f\u1160\u2800")  # letters and signs that are drawn as nothing
_INNER_MARK = re.compile(r"(\*{1,3}|~~|`)([^\W\d_](?:[^*~`\n]*[^\W\d_])?)\1")
_END = re.compile(
    r"(?<![.!?…。])([.!?…。]++)([\"'”’»)\]*_]*)\s+|(?<=[a-z]{2})[.!?]+(?=[A-Z][a-z])|。|(?<=[\u3040-\u9fff])[!?]+"
)
"""The end of a sentence, perhaps: the marks, and the quotes and brackets that it closes."""
_ITEM = re.compile(r"(?:^[ \t]*|(?<=[.!?:;]\s))(\d{1,2})[.)]\s+(?=\S)", re.MULTILINE)
_PART = re.compile(r"[ \t]*(?:[-*#>|+]|\d+[.)])")
"""What a line that goes on with the one before does not begin with."""
_SHORT = frozenset(["e.g", "i.e", "cf", "vs", "viz", "approx"])
_TITLES = frozenset([
    "mr", "mrs", "ms", "dr", "prof", "st", "mt", "gen", "col", "lt", "capt", "sgt", "rev", "hon", "inc", "ltd", "co",
    "corp", "jr", "sr", "dept",
])  # fmt: skip
_CLOSES = frozenset(["etc", "a.m", "p.m", "al"])
_NUMBERED = frozenset([
    "No", "Nos", "no", "nos", "p", "pp", "vol", "ch", "sec", "fig", "art", "jan", "feb", "mar", "apr", "jun", "jul",
    "aug", "sep", "sept", "oct", "nov", "dec",
])  # fmt: skip
_BEGINS = re.compile(
    r"(?:he|she|it|they|we|you|i|the|this|that|these|those|there|here|but|however|so|and|or|our|my|his|her|their|its|your"
    r"|a|an|in|on|at|for|from|to|with|by|as|if|when|while|after|before|then|now|what|who|why|how|where|yes|no|not|some"
    r"|many|most|all|each|every|one)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?:[A-Z]\.\s*)*[A-Z][A-Za-z]")
_NEAR = 24  # characters around a full stop that are looked at
_WRAPPED = 40  # characters of a line that may have been broken for its length


def seen(text: str) -> str:
    """A text as its reader sees it: plain letters, one kind of line end, and nothing that has no width."""
    lines = (unicodedata.normalize("NFKC", line.replace("\u00b4", "'")) for line in text.splitlines())
    return "\n".join("".join(c for c in line if not _hidden(c)) for line in lines).strip()


def _hidden(c: str) -> bool:
    return c not in "\t\n" and (c in _FILLERS or unicodedata.category(c) in ("Cf", "Cc", "Mn", "Mc", "Me"))


def words(text: str) -> list[str]:
    """Words in lower case, apostrophes and hyphens inside them included; marks within one do not part it."""
    # the apostrophe of typesetters is one too
    return re.findall(r"[^\W_]+(?:(?:['’-]|_+)[^\W_]+)*", _unmarked(text).lower())


def uses(text: str, word: str) -> int:
    """How often a word stands in a text, also as a part of `word's`, `word-like` or `_word_`, but not of `words`."""
    return len(re.findall(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", _unmarked(text), re.IGNORECASE))


def _unmarked(text: str) -> str:
    return _INNER_MARK.sub(r"\2", text)


def sentences(text: str) -> int:
    """How many pieces that hold a word the ends of sentences, and line ends, leave.

    A full stop, with any quotes and brackets behind it, ends one, but not after an initial (J. Smith), nor after a
    title or a short form (Dr., e.g., Inc., U.S.) unless a word follows that sentences begin with. The numbers of a list
    are no sentences; a line that was broken for its length goes on.
    """
    text = _unnumbered(_unwrapped(text))
    small = text.islower()  # then sentences begin with small letters
    parted = _END.sub(lambda end: end[0] if end[1] and not _ends_one(end, small) else end[0] + "\0", text)
    return sum(bool(words(piece)) for piece in re.split(r"\0|\n+", parted))


def _unwrapped(text: str) -> str:
    """Join lines that go on: with a small letter, or with a word for which the widest line had no room."""
    return "\n\n".join(_joined(block.split("\n")) for block in re.split(r"\n[ \t]*\n", text))


def _joined(lines: list[str]) -> str:
    out, width = lines[0], max(map(len, lines))
    for before, line in itertools.pairwise(lines):
        first = re.match(r"\s*\S*", line)
        full = len(before) >= _WRAPPED and len(before) + 1 + len(first[0].strip() if first else "") > width
        goes_on = (line.lstrip()[:1].islower() or full) and not _PART.match(line)
        out += (" " if goes_on else "\n") + line
    return out


def _unnumbered(text: str) -> str:
    """Leave out the numbers of a list: at the beginning of lines, and within them where they count up from 1."""
    count = 0

    def cut(item: re.Match[str]) -> str:
        nonlocal count
        follows = int(item[1]) == count + 1
        count += follows
        return "" if follows or item.start() == 0 or item.string[item.start() - 1] == "\n" else item[0]

    return _ITEM.sub(cut, text)


def _ends_one(end: re.Match[str], all_small: bool) -> bool:
    """Whether marks with white space behind them are the end of a sentence."""
    before = end.string[max(0, end.start() - _NEAR) : end.start()]
    follows = end.string[end.end() : end.end() + _NEAR]
    small = follows[:1].islower() and not re.match(r"[a-z]{1,2}[A-Z]", follows)  # iPads
    if end[1] != "." or end[2]:
        return not small or not (end[2] or set(end[1]) <= set(".…"))
    word = re.split(r"[^\w.'’-]", before)[-1]
    name = word.lower()
    if name in _SHORT or (follows[:1].isdigit() and {word, name} & _NUMBERED):
        return False
    begins = _BEGINS.match(follows) is not None and (not small or all_small)
    if name in _CLOSES:
        return begins or not small
    if name in _TITLES or re.fullmatch(r"(?:[a-z]{1,2}\.)+[a-z]{1,2}", name):
        return begins
    initial = len(word) == 1 and word.isupper() and word != "I" and _NAME.match(follows)
    return begins or not initial


def paragraphs(text: str) -> int:
    """How many pieces that hold a word blank lines leave."""
    return sum(bool(words(piece)) for piece in re.split(r"\n[ \t]*\n", text))
