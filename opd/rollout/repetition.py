"""Which completions go round in circles, by the rule that vLLM ends them by (its `repetition_detection`).

A completion has ended in a loop where its last `times * size` tokens are one pattern of `size` tokens, `times` times in
a row, for some size from `shortest` to `longest`. The tokens until then are drawn from `mu` as ever, and whether one is
drawn depends on those before it alone: as at `max_tokens`, what is there is a sample of the policy, without its end.

Source: a length that runs away by repetition is what StableOPD (2026, arXiv 2604.08527) guards against. Its guards are
in the loss; this one is in the engine, and costs nothing, as such completions are else written to `max_tokens`. vLLM
has no defaults for the sizes; those of `opd.types.Repetition` are a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from opd.types import Repetition


def loops(tokens: Sequence[int], rule: Repetition) -> bool:
    """Whether a completion ends in a loop."""
    return rule.longest is not None and bool(looping(np.array([tokens]), rule)[0])


def looping(tokens_RT: Any, rule: Repetition) -> Any:
    """Which of R rows of T tokens end in a loop: bool [R]. Arrays of numpy and of torch alike; the rule has sizes."""
    rows, length = tokens_RT.shape
    found = tokens_RT[:, :0].any(1)  # none
    for size in range(rule.shortest, min(rule.longest or 0, length // rule.times) + 1):
        tail = tokens_RT[:, length - size * rule.times :].reshape(rows, rule.times, size)
        found = found | (tail == tail[:, -1:]).reshape(rows, -1).all(1)
    return found
