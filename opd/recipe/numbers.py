"""Numbers that JSON has not: NaN and the infinities are written as null, and null is read as NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON, which any reader takes."""
    return json.dumps(encode(value), indent=indent, ensure_ascii=False, allow_nan=False)


def encode(value: Any) -> Any:
    """The same with None for each number that is not finite, however deep it lies."""
    if isinstance(value, Mapping):
        return {key: encode(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode(value: Any) -> Any:
    """The same with NaN for each None, however deep it lies: what is computed and plotted wants numbers."""
    if isinstance(value, dict):
        return {key: decode(v) for key, v in value.items()}
    if isinstance(value, list):
        return [decode(v) for v in value]
    return math.nan if value is None else value
