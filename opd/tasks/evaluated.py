"""What may be handed to those of reasoning-gym's scorers that evaluate an answer as code, with `eval` or through sympy.

Nothing is searched for that would be bad: an answer is let through where all of it is of the few kinds of things that
a right answer is made of, in ASCII, so that there is no name, attribute or call in it that the problem does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Entry = Mapping[str, Any]
_FUNCTIONS = frozenset(
    {"sqrt", "exp", "log", "ln", "Abs", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot"}
    | {"sinh", "cosh", "tanh", "asinh", "acosh", "atanh"}
)
_CONSTANTS = frozenset({"C", "E", "pi"})
_PLAIN = re.compile(r"[\w\s]*", re.ASCII)
_LIST = re.compile(r"""(?:[\[\],\s0-9-]|'[\w .]*'|"[\w .]*")*""", re.ASCII)
_SUM = re.compile(r"[0-9+*/().\s-]*", re.ASCII)
_ALGEBRA = re.compile(r"[\w+*/().\s-]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z_]")
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(", re.ASCII)


def is_list(answer: str, entry: Entry) -> bool:
    """Words and digits alone, as on a board, or a list of numbers and quoted words: nothing in it can be called."""
    return bool(_PLAIN.fullmatch(answer) or _LIST.fullmatch(answer))


def is_sum(answer: str, entry: Entry) -> bool:
    """Numbers, brackets and the four operators; no powers, which no such game has."""
    return bool(_SUM.fullmatch(answer)) and "**" not in answer


def is_algebra(answer: str, entry: Entry) -> bool:
    """Arithmetic with powers, the problem's own names, and mathematical functions, which alone stand before brackets.

    The problem's names are those of its own answer and integrand.
    """
    metadata = entry["metadata"]
    own = {*_NAME.findall(f"{entry['answer']} {metadata.get('integrand', '')} {metadata.get('variable', '')}")}
    known = bool(_ALGEBRA.fullmatch(answer)) and {*_NAME.findall(answer)} <= own | _FUNCTIONS | _CONSTANTS
    return known and {*_CALL.findall(answer)} <= _FUNCTIONS and not _ATTRIBUTE.search(answer)


EVALUATING: Mapping[str, Callable[[str, Entry], bool]] = {
    "string_insertion": is_list,
    "spiral_matrix": is_list,
    "binary_matrix": is_list,
    "n_queens": is_list,
    "countdown": is_sum,
    "puzzle24": is_sum,
    "polynomial_multiplication": is_algebra,
    "simple_integration": is_algebra,
    "intermediate_integration": is_algebra,
}
"""Generators whose scorers evaluate answers -> what is let through to them."""


def harmless(name: str, entry: Entry, answer: str) -> bool:
    """Whether an answer may go to the scorer of a generator, or of the one that a generator of several took it from."""
    names = {name, entry["metadata"].get("source_dataset")}
    return answer == entry["answer"] or all(EVALUATING[one](answer, entry) for one in names & EVALUATING.keys())
