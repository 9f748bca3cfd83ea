"""Rollouts that are written and not yet learned from, in a run's checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from opd.rollout.arrays import arrays_to_rollouts, arrays_to_rows, rollouts_to_arrays, rows_to_arrays
from opd.types import Prompt, Rollout

if TYPE_CHECKING:
    from torch import Tensor


def to_state(written: Mapping[int, Sequence[Rollout]]) -> dict[str, Tensor]:
    """Tensors named `STEP.WHAT`; of the prompts the ids, by which they are known again."""
    import torch

    state = {}
    for step, rollouts in written.items():
        prompts = rows_to_arrays("prompts", [r.prompt.tokens for r in rollouts], np.int64)
        for name, array in (rollouts_to_arrays(rollouts) | prompts).items():
            state[f"{step}.{name}"] = torch.from_numpy(array)
    return state


def from_state(state: Mapping[str, Tensor], prompts_of: Callable[[int], Sequence[Prompt]]) -> dict[int, list[Rollout]]:
    """The rollouts again, by step, with the prompts of that step; without the steps whose prompts are others now."""
    steps: dict[int, dict[str, np.ndarray]] = {}
    for name, tensor in state.items():
        number, _, what = name.partition(".")
        steps.setdefault(int(number), {})[what] = tensor.numpy()
    found = {}
    for step, arrays in sorted(steps.items()):
        prompts, then = prompts_of(step), arrays_to_rows("prompts", arrays)
        each = len(then) // max(1, len(prompts))
        owners = [prompt for prompt in prompts for _ in range(each)]
        if [owner.tokens for owner in owners] == then:
            found[step] = arrays_to_rollouts(arrays, owners)
    return found
