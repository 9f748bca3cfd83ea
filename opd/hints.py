"""How a mistake is shown: the value that was given, and the nearest thing that exists; and how any text is printed."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import unicodedata
from collections.abc import Iterable
from typing import Any

LONGEST = 60
"""Characters of a value that are shown."""
LINE = 2000
"""Characters of an error's line."""
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what drives a terminal, turns text around or is not seen, and of halves of characters."""
SPELLED = " '\\"
"""What is, beside that, spelled in a word of a command that has some of it."""
JOINERS = "\u200c\u200d"
"""Which are seen: in emoji, and in Persian and Indian words."""


def nearest(given: object, options: Iterable[str]) -> str:
    """`, did you mean X?` where an option is close to what was given, else nothing."""
    match = difflib.get_close_matches(given, list(options), n=1) if isinstance(given, str) else []
    return f", did you mean {match[0]}?" if match else ""


def among(given: object, options: Iterable[str]) -> str:
    """The nearest option, then all of them, to go on with a message."""
    known = list(options)
    return f"{nearest(given, known) or ';'} there are {', '.join(known) or 'none'}"


def shown(value: Any) -> str:
    """A value as it would be typed in a config, cut short."""
    if isinstance(value, str) and re.fullmatch(r"[\w./:+@$-]+", value):
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=lambda v: type(v).__name__)
        except (ValueError, TypeError, RecursionError):  # a number of thousands of digits; names that JSON has not
            text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def printable(text: str, keep: str = "") -> str:
    """A text as a terminal may have it: what would drive it, or turn the text around, is spelled as in JSON.

    Whoever wrote it, a server, a file or a model, it says nothing but itself. `keep`: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _unseen(c) else _spelled(c) for c in text)


def quoted(text: str) -> str:
    """A word of a command as bash and zsh take it, also from where it was printed: what is not seen is spelled, too."""
    if "  " not in text and printable(text) == text:  # of blanks in a row a message shows one
        return shlex.quote(text)
    return f"$'{''.join(c if c not in SPELLED and not _unseen(c) else _octal(c) for c in text)}'"


def joined(words: Iterable[str]) -> str:
    """A command of these words."""
    return " ".join(map(quoted, words))


def line(text: str) -> str:
    """A message as one line, of no more than a screen."""
    whole = printable(" ".join(text.split()))
    return whole if len(whole) <= LINE else f"{whole[: LINE // 2]} ... {whole[-LINE // 2 + 5 :]}"


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in UNSEEN and character not in JOINERS


def _octal(character: str) -> str:
    odd = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"  # a byte of a file's name
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", odd))


def _spelled(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
