"""What one rank of a layout does in a step: tokens, FLOPs of networks that read them, and of their way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from opd.config.settings import Config
from opd.plan.crew import Crew
from opd.plan.layout import Layout
from opd.plan.shape import Shape
from opd.plan.turns import Turn
from opd.run.cost import Flops, backward, forward

NAN = float("nan")


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt and of a completion, and of the longest completion."""

    prompt: float
    completion: float
    longest: float

    @classmethod
    def of(cls, config: Config, prompt: float | None, completion: float | None) -> Lengths:
        """Those given; where none are, as long as the config allows: an upper bound.

        Of completions whose horizon grows they are means over all steps.
        """
        s = config.sampling
        room = [s.tokens(step) for step in range(config.steps if s.horizon.steps else 1)]
        written = [longest if completion is None else min(completion, longest) for longest in room]
        return cls(config.data.max_prompt_tokens if prompt is None else prompt, _mean(written), _mean(room))

    @property
    def positions(self) -> float:
        """Of a sequence: all but the last token are read."""
        return max(0.0, self.prompt + self.completion - 1)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if len(values) > 1 else values[0]


@dataclass(frozen=True)
class Work:
    """Of one rank in one step."""

    sequences: float
    lengths: Lengths

    @property
    def positions(self) -> float:
        """That a model reads."""
        return self.sequences * self.lengths.positions

    @property
    def tokens(self) -> float:
        """Of completions."""
        return self.sequences * self.lengths.completion


def work_of(config: Config, layout: Layout, lengths: Lengths) -> Work:
    """The share of each rank that learns, equal ones."""
    return Work(config.data.prompts_per_step * config.sampling.n / layout.ranks, lengths)


def writing_of(config: Config, layout: Layout, lengths: Lengths, turn: Turn) -> Work:
    """The share of each engine in what is written together."""
    if turn.asked and config.sampling.horizon.first is not None:
        lengths = replace(lengths, completion=config.sampling.max_tokens, longest=config.sampling.max_tokens)
    return Work(turn.prompts * turn.n / layout.writers, lengths)


def forward_flops(shape: Shape, work: Work, adapters: float = 0) -> Flops:
    """Operations of reading all sequences, the head on all completion tokens; NaN where they are not known.

    A masked row's attention is computed as a whole square, of which the ledger counts the half that is used.
    """
    if shape.multiplies is None:
        return Flops(NAN, NAN, NAN, NAN)
    one = [(round(work.lengths.prompt), max(1, round(work.lengths.completion)))]
    once = forward(shape.multiplies, one, round(work.lengths.completion), adapters)
    many = Flops(*(work.sequences * x for x in (once.linear, once.attention, once.head, once.adapters)))
    return replace(many, attention=2 * many.attention)


def update_flops(crew: Crew, work: Work) -> float:
    """Operations of the student there and back, and of the teacher's head where distributions are compared."""
    there = forward_flops(crew.student, work, crew.student.adapters)
    s = crew.config.student
    back = backward(there, frozen=s.lora is not None, checkpointing=s.gradient_checkpointing)
    heads = (
        sum(2.0 * j.shape.head[0] * j.shape.head[1] * work.tokens for j in crew.judges) if crew.distribution else 0.0
    )
    return there.total + back + heads
