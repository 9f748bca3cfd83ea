r"""Mathematics with an expression for an answer, in the layout of MATH or DeepMath, or any other.

The answer column holds the answer itself, or a solution whose last `\boxed{}` is the answer (Hendrycks et al., 2021).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from opd.extras import install
from opd.tasks.cells import text_of
from opd.tasks.files import Row
from opd.tasks.grader import grader
from opd.tasks.rows import Rows
from opd.text.boxes import last_box, last_boxed
from opd.text.numbers import SCALE, number, plain
from opd.types import Example, Split, UserError

_TAIL = 500  # characters of a completion without a box in which its answer is looked for
CLOSE = 1e-5
"""Relative difference up to which a rounded value is taken for the exact one."""
_SPACES = re.compile(r"[\s~\u00a0]+|\\ ")
_SIGN = re.compile(r"\s*(?:\\?%|\^\s*\{?\s*\\circ\s*\}?|\\degree|\u00b0)\s*$")
_UNIT = re.compile(
    rf"(?:\s|\\[, ;:!])*\\(?:text|mathrm|rm)\s*\{{(?![^{{}}]*\b(?:{SCALE}|or|and|not|more|less|least|most)\b)"
    r"[^{}()]*[A-Za-z][^{}()]*\}\s*(?:\^\s*(?:\{\s*\d\s*\}|\d))?\s*$"
)
_PLAIN_UNIT = re.compile(
    rf"(?<=\d)\s+(?!(?:{SCALE}|or|and|not|pi|mod)\b)[A-Za-z]{{2,}}\.?\s*(?:\^\s*(?:\{{\s*\d\s*\}}|\d))?\s*$"
)
_WORDS = re.compile(rf"\\(?:text|mathrm|rm)\s*\{{[^{{}}]*[A-Za-z]|\d\s+(?:{SCALE}|or|and|not)\b")
_BASE = re.compile(r"\d_\{?(\d+)\}?\Z")
_EMPTY = re.compile(r"\\varnothing(?![A-Za-z])|\u2205|\\\{\s*\\\}")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{\s*(\d+)\s*\}|(\d))")
_TURNED = re.compile(r"([^=<>\\]*\d)\s*=\s*([A-Za-z])")
_LABEL = re.compile(r"\\(?:text|textbf|mathrm|rm)\s*\{\s*\(([A-J])\)\s*\}?(?!.*(?:\b[A-J]\b|\b(?:or|and|not)\b))")
"""The letter of a choice, and no other behind it; its value may follow, which a letter alone cannot be checked with."""
_LETTER = re.compile(r"(?:\\(?:text|textbf|mathrm|rm)\s*\{)?\s*\(?([A-J])\)?\s*\}?")
_PLURALS = (
    (re.compile(r"(?<=[a-z]{2})ies\b"), "y"),
    (re.compile(r"(?<=ch|sh|ss|.x)es\b|(?<=[a-z]{2}[a-rt-z])s\b"), ""),
    (re.compile(r"\bfeet\b"), "foot"),
)
_GAP = re.compile(r"(?<=\d)(?:\\[,!; ]|\{,\})(?=\d{3}(?!\d))")


@dataclass(frozen=True, kw_only=True)
class Math(Rows):
    r"""Problems whose answers math-verify compares: `1/2`, `0.5` and `\frac{1}{2}` are the same."""

    prompt_column: str = "problem"
    answer_column: str = "answer"
    """The right answer, or a solution that ends in it in a box."""

    def columns(self) -> tuple[str, ...]:
        """Name the columns that must be there."""
        return (*super().columns(), self.answer_column)

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; UserError where math-verify is missing, before any model is loaded."""
        require()
        return super().examples(split)

    def answer(self, row: Row) -> tuple[str, Mapping[str, Any]]:
        """Read the answer: what is in the last box, else the whole cell."""
        cell = text_of(row[self.answer_column], self.at(self.answer_column)).strip()
        answer = last_boxed(cell)
        answer = (cell if answer is None else answer).strip().strip("$").strip().removesuffix(".")
        if not answer:
            raise UserError(f"{self.at(self.answer_column)} holds no answer but {cell[-40:]!r}")
        return answer, {}

    def solution(self, row: Row) -> str:
        """Read the solution, which the answer column holds where there is a box in it."""
        cell = text_of(row[self.answer_column], self.at(self.answer_column))
        return cell if last_boxed(cell) is not None else ""

    def verify(self, example: Example, text: str) -> float:
        """Give 1 where the completion's last box, or else its end, means the row's answer, else 0."""
        box = last_box(text)
        if box is None:
            given = text[-_TAIL:]
            return grader().score(comparison, (), tidy(example.answer).words, given) if given.strip() else 0.0
        gold, found = tidy(example.answer), tidy(box.content or "")
        if not box.alone_in(text) or not found.words or (gold.unit and found.unit and gold.unit != found.unit):
            return 0.0
        value, other = number(gold.words), number(found.words)
        if found.percent and not gold.percent and value is not None and other is not None and abs(value) < 1:
            return float(other / 100 == value)
        if found.words == gold.words:
            return 1.0  # most right answers are written alike, and need no algebra
        if (label := _LABEL.match(found.words)) and (letter := _LETTER.fullmatch(gold.words)):
            return float(label[1] == letter[1])
        if _another_kind(gold.words, found.words):
            return 0.0
        if value is not None and other is not None:
            return float(
                value == other or _rounded(value, found.words) == other or _rounded(other, gold.words) == value
            )
        return grader().score(comparison, (), gold.words, f"\\boxed{{{found.words}}}")


@dataclass(frozen=True)
class Tidy:
    """An answer without what is around it."""

    words: str
    unit: str
    """Its unit without white space; empty where it has none."""
    percent: bool = False


def tidy(answer: str) -> Tidy:
    """Take dollar, percent and degree signs, a full stop and a unit off an answer, and gaps out of its numbers."""
    words = plain(answer).strip()
    words = _SPACES.sub(" ", words.strip("$").strip().removesuffix(".").strip()).removeprefix("\\$")
    unit = ""
    while (sign := _SIGN.search(words) or _UNIT.search(words) or _PLAIN_UNIT.search(words)) and sign.start() > 0:
        unit, words = sign[0] + unit, words[: sign.start()]
    words, percent = _GAP.sub("", words.strip("$ ")), "%" in unit
    for pattern, single in _PLURALS:
        unit = pattern.sub(single, unit)
    unit = "" if _SIGN.fullmatch(unit) else re.sub(r"[\s~]|\\[, ;:!]|\\(?:text|mathrm|rm)|[{}]", "", unit)
    return Tidy(_alike(words), unit, percent)


def _alike(words: str) -> str:
    """One spelling of what math-verify reads in one only: the empty set, repeating decimals, `7 = x`."""
    words = _REPEATING.sub(_fraction, _EMPTY.sub(r"\\emptyset", words))
    turned = _TURNED.fullmatch(words)
    return f"{turned[2]}={turned[1]}" if turned else words


def _fraction(decimal: re.Match[str]) -> str:
    whole, fixed, again = decimal[1], decimal[2], decimal[3] or decimal[4]
    bottom = (10 ** len(again) - 1) * 10 ** len(fixed)
    top = int(whole + fixed + again) - int(whole + fixed or "0")
    return rf"\frac{{{top}}}{{{bottom}}}"


def _another_kind(gold: str, found: str) -> bool:
    """Whether two answers differ in what algebra would not look at: words, a base, brackets, digits left out."""
    if number(gold) is not None and (_WORDS.search(found) or "dots" in found):
        return True
    bases = [_BASE.search(words) for words in (gold, found)]
    if all(bases) and bases[0][1] != bases[1][1]:  # type: ignore[index]
        return True
    brackets = [next((k for k in ("(", "[", "\\{") if words.startswith(k)), "") for words in (gold, found)]
    if all(brackets) and ("\\{" in brackets) and brackets[0] != brackets[1]:
        return True
    sides = [number(side) for side in found.split("=")]
    return bool(re.fullmatch(r"[A-Z]{2,}", gold)) or (len(sides) > 1 and None not in sides and len(set(sides)) > 1)


def _rounded(value: Fraction, as_in: str) -> Fraction | None:
    """A fraction that no decimals write out, with as many of them as a number has; None with fewer than six."""
    places = re.fullmatch(r"-?\d*\.(\d{6,})", as_in)
    return round(value, len(places[1])) if places and _reduced(value.denominator) > 1 else None


def _reduced(denominator: int) -> int:
    """What is left of a denominator without the twos and fives, which decimals can write out."""
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator


def require() -> None:
    """Raise UserError where math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise UserError(f"this task checks answers with math-verify, which is not installed:  {install('tasks')}")


def comparison() -> Callable[[str, str], float]:
    """Give what compares a LaTeX expression with an answer, text or LaTeX; for the grader's process."""
    import math_verify

    def equal(gold: str, given: str) -> float:
        # Time is kept by the grader, so math-verify's own alarms, which need a main thread, stay off.
        truth = math_verify.parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
        guess = math_verify.parse(given, parsing_timeout=None)
        interval = re.search(r"\\infty|[\[\]]", gold) is not None  # `(1,2)` may be a point, which `1<x<2` is not
        same = math_verify.verify(truth, guess, allow_set_relation_comp=interval, timeout_seconds=None)
        return float(same and not any(_apart(a, b) for a in truth[:1] for b in guess[:1]))

    return equal


def _apart(a: Any, b: Any) -> bool:
    """Whether two values that were rounded to be compared are different numbers, as very small ones may be."""
    if not (getattr(a, "is_number", False) and getattr(b, "is_number", False)):
        return False
    difference, size = abs((a - b).evalf(30)), abs(a.evalf(30)) + abs(b.evalf(30))
    return bool(difference > CLOSE * size)
