"""The most that an update adds to what is there before it: measured, and as the plan says."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from opd.batch import to_batch
from opd.config.compose import load
from opd.devices.team import Team
from opd.learner.config import Lora, StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.objectives.sft import SFT
from opd.plan.cards import GIB, Card
from opd.plan.crew import crew_of
from opd.plan.layout import Layout
from opd.plan.memory import memory
from opd.types import RunError
from tests.bench import cases
from tests.plan.alone import group


@dataclass(frozen=True)
class Load:
    """A step of one rank: sequences of a prompt and a completion, in tokens, in two micro-batches.

    The second one's way there finds the gradients of the first.
    """

    prompt: int
    completion: int
    sequences: int

    @property
    def micro(self) -> int:
        """Tokens of a micro-batch."""
        return self.sequences // 2 * (self.prompt + self.completion)


MUCH, LITTLE = Load(32, 96, 24), Load(4, 4, 2)
LAYERS = 6


def both(dtype: str, adapted: bool, again: bool) -> tuple[float, float]:
    """Bytes of the plan and bytes measured, for a model of SmolLM2's width with a few layers."""
    with TemporaryDirectory() as name, group(0, 1) as team:
        folder = cases.save_model(Path(name), LAYERS, torch.float32)
        student = StudentConfig(folder, dtype, Lora(rank=8) if adapted else None, again, device="cpu")
        return planned(student, Layout(), MUCH), measured(student, team, MUCH)


def of_rank(model: Path, dtype: str, size: int, shard: int) -> tuple[float, float]:
    """The same of one of `size` ranks, `shard` of which have a copy, in a step of so few tokens that weights are all.

    What it would be sent is not there: its loss may be no number, which is said once all gradients are summed.
    """
    student = StudentConfig(str(model), dtype, gradient_checkpointing=True, device="cpu")
    with group(0, size, shard) as team:
        layout = Layout(size, shard=None if shard == size else shard)
        return planned(student, layout, LITTLE), measured(student, team, LITTLE)


def measured(settings: StudentConfig, team: Team, step: Load) -> float:
    """Most bytes that torch holds in a second step above what it had before; the first one makes the optimizer's state.

    They are torch's own allocations: what the system's allocator keeps of freed ones is another's business.
    """
    student = Student.load(settings, Optim(micro_tokens=step.micro), 1.0, team=team)
    given = cases.scored(cases.even(step.sequences, step.prompt, step.completion), vocabulary=student.vocabulary)
    batch = to_batch(given, 0, step.micro)
    with suppress(*[RunError] * (team.size > 1)):
        student.update(batch, SFT(), 1e-5)
    with torch.profiler.profile(profile_memory=True) as profiled, suppress(*[RunError] * (team.size > 1)):
        student.update(batch, SFT(), 1e-5)
    events = profiled.profiler.kineto_results.events()
    moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return float(max(accumulate(size for _, size in moves)))


def planned(settings: StudentConfig, layout: Layout, step: Load) -> float:
    """What an update has beside weights, optimizer and engine."""
    made = load("math_qwen_sft").config
    config = replace(
        made, student=settings, optim=Optim(micro_tokens=step.micro),
        data=replace(made.data, prompts_per_step=step.sequences * layout.ranks, max_prompt_tokens=step.prompt),
        sampling=replace(made.sampling, max_tokens=step.completion, n=1),
    )  # fmt: skip
    card = Card("cpu", 8 * GIB, 1e12, 1e12, 1e10, 1e10)
    (device,) = memory(crew_of(config, None), card, layout)
    resident = set(device.phases["generate"])
    return float(sum(size for part, size in device.phases["update"].items() if part not in resident))
