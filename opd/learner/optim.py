"""Optimizer and schedule settings; the learning rate is a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]

GRADIENTS = "gradients"
"""The phase of an update before the optimizer's own step: the weights are as they were."""


@dataclass(frozen=True)
class Optim:
    """AdamW, warm-up, decay, clipping, and how a step is cut into micro-batches."""

    lr: Annotated[float, Field(gt=0, le=10)] = 1e-4
    """Learning rate after the warm-up; adapters take about ten times that of all weights."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """Of Adam: how long the means of gradients and of their squares remember."""
    eps: Positive = 1e-8
    """Of Adam: added to the root of the mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Share of each weight, times `lr`, that is taken off in a step."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the rate does after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps in which the rate rises from 0."""
    min_lr_ratio: Share = 0.0
    """Where linear and cosine decay end, as a share of `lr`."""
    max_grad_norm: Positive | None = 1.0
    """Gradients are scaled down to this norm; None never clips."""
    micro_tokens: Annotated[int, Field(ge=1)] = 4096
    """Positions (prompt and completion) that go through the student at once; only memory and speed depend on it."""
    halving: bool = True
    """Where memory is short in an update: do the step again with half as many, and go on so. Not on ranks."""
    offload: bool = False
    """Keep its states in the host's memory, and have them on the GPU for their own weights' step alone."""
    steps_per_batch: Annotated[int, Field(ge=1)] = 1
    """Optimizer steps taken on each batch of rollouts, each on its own share of them."""

    @property
    def remedy(self) -> str:
        """What to change where an update has made numbers that are not finite."""
        return (
            f"try a lower optim.lr ({self.lr:g}) or optim.weight_decay ({self.weight_decay:g}), or a higher optim.eps "
            f"({self.eps:g})"
        )


def learning_rate(optim: Optim, step: int, total: int) -> float:
    """Learning rate of optimizer step `step` (from 0) of `total`: linear warm-up, then the schedule."""
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    progress = (step - optim.warmup_steps) / max(1, total - optim.warmup_steps)
    decay = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))),
    }[optim.schedule]
    floor = optim.min_lr_ratio if optim.schedule != "constant" else 0.0
    return optim.lr * (floor + (1.0 - floor) * max(0.0, decay))
