"""What tells a model that judges from another one: its files' fingerprint or, elsewhere, what it says of one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opd.teaching import Mark, Marked

SAME = 0.1
"""Nats between the log-probs of a token on two ways, or at two times, that are rounding, in bfloat16."""


def apart(then: Sequence[float], now: Sequence[float]) -> float:
    """Nats a token between what was said of a text at two times, on average over what was said at both."""
    gaps = [abs(a - b) for a, b in zip(then, now, strict=False)]
    return sum(gaps) / len(gaps) if gaps else 0.0


def marks_of(scorers: Mapping[str, object]) -> Mapping[str, Mark]:
    """Those of several, under their names."""
    every = {name: scorer.marks() for name, scorer in scorers.items() if isinstance(scorer, Marked)}
    return {f"{name} {inner}".strip(): mark for name, marks in every.items() for inner, mark in marks.items()}


def same(then: object, now: Mark) -> bool:
    """Whether it is the same model as far as its mark shows, `then` as it stands in a file."""
    if isinstance(then, list) and not isinstance(now, str) and all(isinstance(value, float | int) for value in then):
        return apart(then, now) <= SAME
    return then == now
