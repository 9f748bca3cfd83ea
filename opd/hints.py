"""How a mistake is shown: the value that was given, and the nearest thing that exists."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

LONGEST = 60
"""Characters of a value that are shown."""


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
        text = json.dumps(value, ensure_ascii=False, default=lambda v: type(v).__name__)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
