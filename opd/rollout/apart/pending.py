"""Rollouts that are written and not yet learned from, in a run's checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from opd.rollout.arrays import arrays_to_rollouts, arrays_to_rows, rollouts_to_arrays, rows_to_arrays
from opd.rollout.drafts import Plan
from opd.types import Rollout, Sampling

if TYPE_CHECKING:
    from torch import Tensor


DRAWN = "drawn"
"""How they were drawn, as JSON in UTF-8."""


def to_state(written: Mapping[int, Sequence[Rollout]], plan: Plan) -> dict[str, Tensor]:
    """Tensors named `STEP.WHAT`; of the prompts the ids, and of how they were drawn all: by these they are known again.

    `plan`: what each step was to be written of, and how.
    """
    import torch

    state = {}
    for step, rollouts in written.items():
        prompts = rows_to_arrays("prompts", [r.prompt.tokens for r in rollouts], np.int64)
        prompts[DRAWN] = np.frombuffer(said(plan(step)[1]), np.uint8).copy()
        for name, array in (rollouts_to_arrays(rollouts) | prompts).items():
            state[f"{step}.{name}"] = torch.from_numpy(array)
    return state


def from_state(state: Mapping[str, Tensor], plan: Plan) -> dict[int, list[Rollout]]:
    """The rollouts again, by step, with the prompts of that step; without steps of other prompts, or drawn otherwise.

    An earlier opd did not write how they were drawn.
    """
    steps: dict[int, dict[str, np.ndarray]] = {}
    for name, tensor in state.items():
        number, _, what = name.partition(".")
        steps.setdefault(int(number), {})[what] = tensor.numpy()
    found = {}
    for step, arrays in sorted(steps.items()):
        (prompts, drawn), then = plan(step), arrays_to_rows("prompts", arrays)
        each = len(then) // max(1, len(prompts))
        owners = [prompt for prompt in prompts for _ in range(each)]
        alike = DRAWN not in arrays or arrays[DRAWN].tobytes() == said(drawn)
        if alike and [owner.tokens for owner in owners] == then:
            found[step] = arrays_to_rollouts(arrays, owners)
    return found


def said(sampling: Sampling) -> bytes:
    """All that a draw is told."""
    return json.dumps(asdict(sampling), sort_keys=True).encode()
