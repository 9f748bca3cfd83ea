"""All settings of a run. One schema for train, eval, export and the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from opd.called import called
from opd.config.horizon import Horizon
from opd.config.stop import StopConfig, refuse_unmeasured
from opd.config.together import added, by_policy, refuse_lockstep, refuse_unspread
from opd.data.prompts import Data
from opd.devices.one import One
from opd.hints import shown
from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.needs import Provides
from opd.protocols import Devices, Objective
from opd.sources.parts import saying
from opd.teaching import Teacher
from opd.trackers import TrackerConfig
from opd.types import Repetition
from opd.writing import Engine, Source

MOST = 10**9
"""More than this of anything is a slip of the pen."""
MOST_ROLLOUTS = 10**6
"""Completions of a step, or of a prompt: each is a few kilobytes at least, wherever it goes."""
Count = Annotated[int, Field(ge=1, le=MOST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[float, Field(gt=0)]
TopP = Annotated[float, Field(gt=0, le=1)]
MinP = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class SamplingConfig:
    """How the student writes during training."""

    max_tokens: Count
    """Tokens of a completion, its end included, after which it is cut off."""
    n: Count = 4
    """Samples per prompt."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Of student and learner alike: 1 is the model itself."""
    top_p: TopP = 1.0
    """Only 1 in training: nothing is cut off; likewise the next two."""
    top_k: NonNegativeInt = 0
    """Only 0."""
    min_p: MinP = 0.0
    """Only 0."""
    horizon: Horizon = field(default_factory=Horizon)
    """Short and growing rollouts: of how many tokens completions are written, where it is not all of them."""
    repetition: Repetition = field(default_factory=Repetition)
    """When a completion that repeats itself is ended."""

    def __post_init__(self) -> None:
        """Refuse truncated distributions: the learner's log-probs are those of the full one."""
        if self.horizon.first is not None and self.horizon.first > self.max_tokens:
            raise ValueError(
                f"horizon.first={self.horizon.first}: allowed is at most max_tokens={self.max_tokens}, or null"
            )
        given = {"top_p": (self.top_p, 1.0), "top_k": (self.top_k, 0), "min_p": (self.min_p, 0.0)}
        for name, (value, full) in given.items():
            if value != full:
                raise ValueError(
                    f"{name}={value}: it cuts tokens off, so that samples are not the learner's policy and the policy "
                    f"gradient is biased; allowed in training is {full} (eval.{name} is free)"
                )

    def tokens(self, step: int) -> int:
        """At most so many of a completion are written in step `step`, counted from 0."""
        return self.horizon.at(step, self.max_tokens)

    def short(self, step: int) -> bool:
        """Whether completions of that step are cut before they have had all the room that there is."""
        return self.tokens(step) < self.max_tokens


@dataclass(frozen=True)
class EvalConfig:
    """How a model is measured, in training and by `opd eval`."""

    every: NonNegativeInt = 50
    """Steps between evaluations in training; 0: only before the first step and after the last."""
    size: Count = 200
    """Held-out prompts."""
    n: Count = 1
    """Samples per prompt."""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """0: always the likeliest token; null: that of training."""
    top_p: TopP = 1.0
    """Samples from the likeliest tokens that have this probability together, as the next two from a part of the
    student's distribution: `eval/kl` is then the KL of that part to the teacher."""
    top_k: NonNegativeInt = 0
    """Samples from so many of the likeliest tokens; 0: from all."""
    min_p: MinP = 0.0
    """Leaves out tokens that are less than this share as likely as the likeliest one."""
    max_tokens: Count | None = None
    """None: that of training."""
    max_turns: Count | None = None
    """Turns of a conversation with a task that answers (a tool, an environment); null: as in training."""
    k: tuple[Count, ...] = (1,)
    """pass@k is reported for these k, each at most `n`."""

    def __post_init__(self) -> None:
        """Check that pass@k can be estimated."""
        if self.n > MOST_ROLLOUTS:
            raise ValueError(f"n={self.n}: allowed are {MOST_ROLLOUTS} samples of a prompt")
        if max(self.k, default=1) > self.n:
            raise ValueError(f"k={list(self.k)}: allowed is at most the number of samples, eval.n={self.n}")


@dataclass(frozen=True)
class CheckpointConfig:
    """What a run keeps."""

    every: Count = 50
    """Steps between checkpoints; there is one after the last step in any case."""
    keep: Count = 2
    """How many of the newest stay."""
    best: str | None = None
    """A figure of evaluations, such as eval/kl or eval/accuracy: the checkpoint where it was best stays too, and is
    `step=best`; one is written at each evaluation that is the best so far."""


@dataclass(frozen=True)
class LogConfig:
    """What a run writes down beside its metrics."""

    trackers: tuple[TrackerConfig, ...] = ()
    """Where metrics are sent, too."""
    rollouts_every: NonNegativeInt = 10
    """Steps between files of rollouts; 0: none."""
    exact_kl: bool = True
    """Also measure the exact reverse KL and the teacher's entropy, where the teacher gives its distribution."""


@dataclass(frozen=True)
class PreflightConfig:
    """Checks before the first step."""

    prompts: Count = 8
    """Prompts that are tried before the first step."""
    max_gap: Positive | None = None
    """Largest mean |log-prob of the engine - of the learner| in nats; None: 0.01 in float32, 0.15 otherwise."""
    max_kl: Positive = 20.0
    """A reverse KL per token above this means that the two do not speak the same language or template."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    name: str
    """What run directories begin with."""
    steps: Count
    """Batches of rollouts."""
    student: StudentConfig
    teacher: Teacher
    rollout: Engine
    objective: Objective
    source: Source
    data: Data
    sampling: SamplingConfig
    reference: Teacher | None = None
    """A second model, for objectives that compare with it."""
    optim: Optim = field(default_factory=Optim)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    log: LogConfig = field(default_factory=LogConfig)
    devices: Devices = field(default_factory=One)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)
    seed: Annotated[int, Field(ge=0)] = 0
    """All that is drawn follows from it."""
    threads: Count | None = None
    """Torch threads of engine, learner and teacher. None: as many as there are idle cores when a run begins."""
    runs: str = "runs"
    """Folder that run directories are made in."""

    def __post_init__(self) -> None:
        """Check what no single part can."""
        if not re.fullmatch(r"\w[\w.+-]{,99}", self.name):
            raise ValueError(
                f"name={shown(self.name[:99])}: allowed are letters, digits, and . _ + - after the first, at most 100"
            )
        refuse_unmeasured("stop.metric", self.stop.metric, self.eval.every)
        refuse_unmeasured("checkpoint.best", self.checkpoint.best, self.eval.every)
        missing = self.objective.needs.lacking(self.available())
        if missing:
            raise ValueError(
                f"objective={called('objective', self.objective)}: it needs {missing}; given are "
                f"teacher={called('teacher', self.teacher)}, source={called('source', self.source)}, "
                f"sampling.n={self.sampling.n} and {'a' if self.reference else 'no'} reference"
            )
        lora = self.student.lora
        if lora is not None and lora.dropout and by_policy(self.objective):
            raise ValueError(
                f"student.lora.dropout={lora.dropout:g}: the policy that is trained would not be the one that sampled; "
                "allowed is 0 with this objective"
            )
        alike = next((one for one in added(self.objective) if one.needs.columns), None)
        if self.teacher.provides.spans and alike is not None:
            raise ValueError(
                f"objective={called('objective', alike)}: its divergence is over one vocabulary, and "
                f"teacher={called('teacher', self.teacher)} has another one; allowed is objective=gold"
            )
        if self.sampling.short(0) and self.objective.needs.rewards:
            raise ValueError(
                f"sampling.horizon.first={self.sampling.horizon.first}: what is cut there has no end that a verifier "
                f"could judge, and objective={called('objective', self.objective)} learns from rewards; allowed is null"
            )
        if self.sampling.short(0) and (source := saying(self.source, "needs_ends")):
            raise ValueError(
                f"sampling.horizon.first={self.sampling.horizon.first}: what is cut there has no end that a verifier "
                f"could judge, and source={source} goes by rewards; allowed is null"
            )
        if not self.teacher.provides.logprobs and (source := saying(self.source, "needs_teacher")):
            raise ValueError(
                f"source={source}: it goes by the teacher's log-probs of what the student writes, and "
                f"teacher={called('teacher', self.teacher)} has none; allowed is source.by=reward"
            )
        if self.devices.ahead and (source := saying(self.source, "picks")):
            raise ValueError(
                f"devices.ahead={self.devices.ahead}: source={source} takes prompts by what has come before, and of "
                "rollouts that wait their turn only the data's own prompts are kept; allowed is 0"
            )
        refuse_lockstep(self.devices, self.rollout, self.source)
        refuse_unspread(self.devices, self.rollout)
        rollouts = self.data.prompts_per_step * self.sampling.n
        if rollouts > MOST_ROLLOUTS:
            raise ValueError(
                f"sampling.n={self.sampling.n}: with data.prompts_per_step={self.data.prompts_per_step} it makes "
                f"{rollouts} rollouts a step; allowed are {MOST_ROLLOUTS}"
            )
        if rollouts < self.optim.steps_per_batch:
            raise ValueError(
                f"optim.steps_per_batch={self.optim.steps_per_batch}: allowed is at most the number of rollouts of a "
                f"step, data.prompts_per_step * sampling.n = {rollouts}"
            )

    @property
    def stale(self) -> bool:
        """Whether samples may be of older weights than those that they train."""
        return bool(self.devices.ahead or self.optim.steps_per_batch > 1 or saying(self.source, "stale"))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that an engine has to read: a prompt and its completion."""
        return self.data.max_prompt_tokens + max(self.sampling.max_tokens, self.eval.max_tokens or 0)

    @property
    def longest_trained(self) -> int:
        """Tokens of the longest sequence that is trained on: less where completions are not written to their end."""
        return self.data.max_prompt_tokens + self.sampling.tokens(self.steps - 1)

    @property
    def computes(self) -> str:
        """In which dtypes student, teacher and engine compute, and with how many threads, for people."""
        parts = {"student": self.student, "teacher": self.teacher, "engine": self.rollout}
        known = {name: dtype for name, part in parts.items() if (dtype := getattr(part, "dtype", None))}
        kinds = set(known.values())
        said = kinds.pop() if len(kinds) == 1 else ", ".join(f"{name} {dtype}" for name, dtype in known.items())
        return f"{said}, {self.threads or 'all'} thread{'' if self.threads == 1 else 's'}"

    def available(self) -> Provides:
        """What an objective can have here; whether a task has a verifier shows at the first completion."""
        reference = self.reference is not None and self.reference.provides.logprobs
        groups, source = self.sampling.n > 1, self.source
        run = Provides(
            reference=reference, rewards=True, groups=groups, policy=source.policy, current=True, entropy=True,
            origins=source.origins,
        )  # fmt: skip
        return self.teacher.provides | run
