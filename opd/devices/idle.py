"""Settings that do nothing where a run computes, such as those that make room on a GPU, or more than is meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from opd.devices.compute import pick_device
from opd.devices.team import Team


def idle(cfg: Any, team: Team) -> Iterator[str]:
    """A line for each of them that is set."""
    if getattr(cfg.rollout, "sleep", False):
        if cfg.devices.apart:
            yield "rollout.sleep does nothing: the engine is in a process of its own"
        elif not torch.cuda.is_available():
            yield "rollout.sleep does nothing: the engine computes on the CPU"
    on_cpu = pick_device(cfg.student.device).type != "cuda"
    if cfg.student.offload and on_cpu:
        yield "student.offload does nothing: the student computes on the CPU"
    elif cfg.student.offload and team.mesh is not None:
        yield "student.offload does nothing: a rank's shard of the weights stays on its device"
    if 0 < cfg.steps <= cfg.devices.ahead:
        yield (
            f"devices.ahead={cfg.devices.ahead}: all of steps={cfg.steps} are written with the weights that the run "
            "begins with"
        )
    if cfg.optim.offload and on_cpu:
        yield "optim.offload does nothing: the student computes on the CPU"
