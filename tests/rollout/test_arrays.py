"""Nothing of a rollout changes on its way through arrays."""

from __future__ import annotations

import math
import pickle

from opd.rollout.arrays import arrays_to_rollouts, rollouts_to_arrays
from opd.types import Example, Prompt, Rollout

BOTH = ("student", "teacher")
PROMPTS = [Prompt(Example(name, ()), (1, 2)) for name in "abc"]
ROLLOUTS = [
    Rollout(PROMPTS[0], (3, 4), (-1.0, math.nan), True, 7, "part", BOTH, (True, False), (-0.3, -2.0)),
    Rollout(PROMPTS[1], (), (), False, reward=0.0, writers=()),
    Rollout(
        PROMPTS[2], (2**40,), (-1 / 3,), False, 1, reward=1 / 7, trained=(False,), tries=2,
        beside=(("student", 3, 4), ("teacher", 3, 0)),
    ),
]  # fmt: skip


def test_rollouts_are_the_same_again_with_their_very_prompts() -> None:
    again = arrays_to_rollouts(pickle.loads(pickle.dumps(rollouts_to_arrays(ROLLOUTS))), PROMPTS)
    assert repr(again) == repr(ROLLOUTS)  # a NaN equals none
    assert again[1:] == ROLLOUTS[1:]
    assert all(rollout.prompt is prompt for rollout, prompt in zip(again, PROMPTS, strict=True))
    assert arrays_to_rollouts(rollouts_to_arrays([]), []) == []


def test_no_example_travels() -> None:
    assert b"Example" not in pickle.dumps(rollouts_to_arrays(ROLLOUTS))
