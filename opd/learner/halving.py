"""A step whose micro-batches are too large for the memory is taken again in smaller ones: the gradient is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from opd.devices.shortage import Shortage
from opd.learner.optim import GRADIENTS
from opd.learner.student import Student
from opd.tensors import Batch

T = TypeVar("T")
ONE = "one sequence"
"""What is at work in a phase where no micro-batch can be divided."""


def fitted(student: Student, pack: Callable[[int], Batch], take: Callable[[Batch], T], say: Callable[[str], None]) -> T:
    """Take an optimizer step in micro-batches that fit.

    Where memory is short, the student has half as many `micro_tokens` from then on, and random states are as they were:
    the step is the one that it would have been had so many been set.

    Args:
        student: Who learns, with its settings.
        pack: Makes the step's batch for so many `micro_tokens`.
        take: Has the student learn from it.
        say: Told once that they have become fewer.

    Raises:
        Shortage: Of a single sequence, in the optimizer's own step, or where `optim.halving` is off. Of ranks that
            share out weights one cannot stop where the others wait for it: there it ends the run.
    """
    set_before = student.optim.micro_tokens
    while True:
        states = random_states(student.device)
        batch = pack(student.optim.micro_tokens)
        try:
            taken = take(batch)
        except Shortage as short:
            if GRADIENTS not in short.phases or not student.optim.halving or student.team.mesh is not None:
                raise
            if not (fewer := half(batch)):
                raise Shortage(short.asked, (*short.phases, ONE)) from short
        else:
            break
        student.optim = replace(student.optim, micro_tokens=fewer)
        restore(states, student.device)
    if (now := student.optim.micro_tokens) != set_before:
        say(f"out of memory in update: the step was done again with optim.micro_tokens={now}, which stays; it was "
            f"{set_before}")  # fmt: skip
    return taken


def half(batch: Batch) -> int:
    """Half of the positions of its largest micro-batch that can be divided; 0: each is one sequence."""
    return max((m.input_ids.numel() for m in batch.micro if len(m.input_ids) > 1), default=0) // 2


def random_states(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What dropout draws from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def restore(states: tuple[torch.Tensor, torch.Tensor | None], device: torch.device) -> None:
    """Have it drawn again."""
    host, other = states
    torch.set_rng_state(host)
    if other is not None:
        torch.cuda.set_rng_state(other, device)
