"""The most that an update adds to what is there before it: measured, and as the plan says."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from opd.batch import to_batch
from opd.config.compose import load
from opd.learner.config import StudentConfig
from opd.learner.lora import Lora
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.objectives.sft import SFT
from opd.plan.cards import GIB, Card
from opd.plan.crew import crew_of
from opd.plan.layout import Layout
from opd.plan.memory import memory
from tests.bench import cases

PROMPT, COMPLETION, SEQUENCES, LAYERS = 32, 96, 24, 6
MICRO = SEQUENCES // 2 * (PROMPT + COMPLETION)
"""Two micro-batches: the second one's way there finds the gradients of the first."""


def both(dtype: str, adapted: bool, again: bool) -> tuple[float, float]:
    """Bytes of the plan and bytes measured, for a model of SmolLM2's width with a few layers."""
    with TemporaryDirectory() as name:
        folder = cases.save_model(Path(name), LAYERS, torch.float32)
        student = StudentConfig(folder, dtype, Lora(rank=8) if adapted else None, again, device="cpu")
        return planned(student), measured(student)


def measured(settings: StudentConfig) -> float:
    """Most bytes that torch holds in a second step above what it had before; the first one makes the optimizer's state.

    They are torch's own allocations: what the system's allocator keeps of freed ones is another's business.
    """
    student = Student.load(settings, Optim(micro_tokens=MICRO), 1.0)
    batch = to_batch(cases.scored(cases.even(SEQUENCES, PROMPT, COMPLETION)), 0, MICRO)
    student.update(batch, SFT(), 1e-5)
    with torch.profiler.profile(profile_memory=True) as profiled:
        student.update(batch, SFT(), 1e-5)
    events = profiled.profiler.kineto_results.events()
    moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return float(max(accumulate(size for _, size in moves)))


def planned(settings: StudentConfig) -> float:
    """What an update has beside weights, optimizer and engine."""
    made = load("math_qwen_sft").config
    config = replace(
        made, student=settings, optim=Optim(micro_tokens=MICRO),
        data=replace(made.data, prompts_per_step=SEQUENCES, max_prompt_tokens=PROMPT),
        sampling=replace(made.sampling, max_tokens=COMPLETION, n=1),
    )  # fmt: skip
    card = Card("cpu", 8 * GIB, 1e12, 1e12, 1e10, 1e10)
    (device,) = memory(crew_of(config, None), card, Layout())
    resident = set(device.phases["generate"])
    return float(sum(size for part, size in device.phases["update"].items() if part not in resident))
