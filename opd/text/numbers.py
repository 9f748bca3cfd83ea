r"""Numbers as people and models write them, read exactly and whole: what is only partly a number is none.

Known are signs before or after a currency, thousands in groups (`1,200`, `1{,}200`, `1\,200`, thin spaces), decimals,
fractions (`3/4`, `\frac{3}{4}`, `\frac34`), mixed numbers (`1 1/2`, `1\frac{1}{2}`, `2½`) and powers of ten
(`1.2e-3`, `1.2 \times 10^{-3}`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

SCALE = r"(?:hundred|thousand|million|billion|trillion|dozen)s?"
"""Words that make another number of the one before them."""
_GROUP = r"(?:,|\{,\}|\\,|\\!|\\;|\\ |[\u00a0\u2009\u202f ])"
_WHOLE = rf"[0-9]{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)|\d+"
_LATEX = r"\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d)(?!\d))"
_TEN = r"(?:\s*(?:\\times|\\cdot|[×x*·])\s*10\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d+)\s*\}?|[eE]([-+]?\d+))"
_BODY = (
    rf"(?:(?P<mixed>{_WHOLE})\s*{_LATEX}|(?P<spaced>\d+)[ ~]+(?P<over>\d+)\s*/\s*(?P<under>\d+)"
    rf"|{_LATEX}|(?P<top>{_WHOLE})\s*/\s*(?P<bottom>\d+)"
    rf"|(?P<whole>{_WHOLE})?(?P<point>\.\d+)?(?<=\d)(?:{_TEN})?)"
)
_MONEY = r"(?:\\?[$€£¥]\s?)"
_NUMBER = re.compile(rf"(?P<sign>[-+]?){_MONEY}?(?P<inner>[-+]?){_BODY}")
_GOES_ON = re.compile(r"\d|[.,/:]\d|\s*/\s*\d|\s*\^|\s*\\(?:pi|sqrt)|[\u00b2\u00b3\u00b9\u2070-\u2079]|\s*×\s*\d|\*\d")
"""What makes of a number a part of something else: another number, a power, a product."""
_OPERATOR = re.compile(r"(?:[\w)\]}][ \t]*[-+/÷×·^]|[\d)\]}][ \t]*(?:\*\*?|[xX])|\\(?:times|cdot|div|pm))[ \t]*\$?\Z")
"""Before a number: what makes it the second one of a sum, a range or a power."""
_DIGIT = re.compile(r"[0-9]")
_BEFORE = 16  # characters before a number that are looked at
_CHUNK = re.compile(r"\d[\d.,/:]*")
_SIGNS = str.maketrans(dict.fromkeys("\u2212\u2013\ufe63\uff0d\u2010\u2011", "-") | {"\uff0b": "+", "\u2044": "/"})


@dataclass(frozen=True)
class Found:
    """A number in a text, or what begins like one."""

    value: Fraction | None
    """None where it cannot be read as a whole."""
    start: int
    end: int


def plain(text: str) -> str:
    """The same text with one kind of minus sign, ASCII digits, and fractions that are one character written out."""
    out = []
    for character in text.translate(_SIGNS):
        if unicodedata.category(character) == "No" and "\u2044" in unicodedata.normalize("NFKC", character):
            out.append(" " + unicodedata.normalize("NFKC", character).replace("\u2044", "/"))
        elif "\uff04" <= character <= "\uff19":  # full-width signs and digits
            out.append(unicodedata.normalize("NFKC", character))
        else:
            out.append(character)
    return "".join(out)


def number(text: str) -> Fraction | None:
    """The number that a whole text is; None where it is none, or more than one.

    White space around it does not count, nor does a full stop at its end.
    """
    given = plain(text).strip().removesuffix(".").strip()
    match = _NUMBER.match(given)
    return _value(match) if match and match.end() == len(given) else None


def numbers(text: str) -> Iterator[Found]:
    """All numbers of a text that `plain` has returned, in order; a minus between two of them is no sign.

    A run of digits that is only partly a number (`1,2`, `7:30`, `1.2.3`) is found, without a value.
    """
    at = 0
    while first := _DIGIT.search(text, at):
        place = _beginning(text, first.start(), at)
        match = _NUMBER.match(text, place)
        if match and not _GOES_ON.match(text, match.end()):
            yield Found(_value(match), place, match.end())
            at = match.end()
        else:
            chunk = _CHUNK.match(text, first.start())
            at = max(chunk.end() if chunk else first.end(), match.end() if match else 0)
            yield Found(None, place, at)


def second(text: str, start: int) -> bool:
    """Whether the number that begins at a place in a text is only the second one of a sum, a product or a range."""
    return _OPERATOR.search(text, max(0, start - _BEFORE), start) is not None


def _beginning(text: str, digit: int, least: int) -> int:
    """Where the number begins whose first digit is at a place: its point, currency, sign, or LaTeX."""
    place = digit
    if latex := re.search(r"\\[dt]?frac\s*\{?\s*-?$", text[least:digit]):
        place = least + latex.start()
    if place > least and text[place - 1] == "." and not (place > 1 and text[place - 2].isalnum()):
        place -= 1
    before = re.search(rf"[-+]?{_MONEY}?[-+]?$", text[least:place])
    start = least + before.start() if before else place
    if start < place and text[start] in "-+" and start and (text[start - 1].isalnum() or text[start - 1] in ")]}.%"):
        start += 1  # between two numbers, or within a word: no sign
    return start


def _value(match: re.Match[str]) -> Fraction | None:
    groups = match.groupdict()
    loose = match.groups()
    try:
        value = _unsigned(match, groups, loose)
    except (ZeroDivisionError, ValueError, OverflowError):
        return None
    if groups["sign"] and groups["inner"]:
        return None
    return -value if "-" in (groups["sign"], groups["inner"]) else value


def _unsigned(match: re.Match[str], groups: dict[str, str | None], loose: tuple[str | None, ...]) -> Fraction:
    names = match.re.groupindex
    first = names["mixed"]  # the fraction's four groups follow it; those of the fraction alone follow `under`
    if groups["mixed"] is not None:
        top, bottom = _parts(loose[first : first + 4])
        if top.startswith("-"):
            raise ValueError("a sign within a mixed number")
        return Fraction(_digits(groups["mixed"])) + Fraction(int(top), int(bottom))
    if groups["spaced"] is not None:
        return int(groups["spaced"]) + Fraction(int(str(groups["over"])), int(str(groups["under"])))
    alone = loose[names["under"] : names["under"] + 4]
    if any(alone):
        top, bottom = _parts(alone)
        return Fraction(int(top), int(bottom))
    if groups["top"] is not None:
        return Fraction(int(_digits(groups["top"])), int(str(groups["bottom"])))
    power = int(next((p for p in loose[names["point"] :] if p), "0"))
    if abs(power) > 4000:
        raise OverflowError("a power of ten that nobody writes out")
    return Fraction(_digits(groups["whole"] or "0") + (groups["point"] or "")) * Fraction(10) ** power


def _parts(latex: tuple[str | None, ...]) -> tuple[str, str]:
    top, bottom = (latex[0], latex[1]) if latex[0] is not None else (latex[2], latex[3])
    return str(top), str(bottom)


def _digits(whole: str) -> str:
    return re.sub(r"\D", "", whole)
