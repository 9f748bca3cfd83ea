"""Where memory was short: the setting to lower, and a value that would have fitted, as far as that can be known.

The plan is imported when it is asked: a run that has memory needs none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from opd.config.settings import Config
from opd.devices.shortage import Shortage
from opd.learner.halving import ONE
from opd.rollout.hf import Hf
from opd.rollout.vllm import Vllm
from opd.teachers.local import LocalTeacher
from opd.types import RunError

NEEDED = re.compile(r"\(([\d.]+) gib kv cache is needed")
FREE = re.compile(r"\(([\d.]+)/([\d.]+) gib\)")
"""What vLLM says it needs, and what there is of how much."""


@dataclass(frozen=True)
class Less:
    """A number to lower."""

    name: str
    """The setting, as it is typed."""
    now: int
    used: int
    """How much of it the run makes use of at most."""
    least: int
    """What nothing is gained below."""
    put: Callable[[int], Config]
    """The config with another number."""

    @property
    def values(self) -> list[int]:
        """Those to choose from: halves, down to the least."""
        found, value = [], min(self.now, self.used)
        while (value := value // 2) > self.least:
            found.append(value)
        return [*found, self.least] if min(self.now, self.used) > self.least else []


@contextmanager
def advised(cfg: Config) -> Iterator[None]:
    """Where memory is short inside, the setting to lower is said, too."""
    try:
        yield
    except Shortage as short:
        raise RunError(f"{short}; {remedy(cfg, short)}") from short


def remedy(cfg: Config, short: Shortage) -> str:
    """What to set, by the innermost phase that something is known for."""
    for phase in reversed(short.phases):
        if phase == "engine" and (said := _engine(cfg, short.asked.lower())):
            return said
        numbers = [less for less in _numbers(cfg).get(phase, ()) if less.values]
        known = [f"lower {less.name}={less.now} to {_fitting(cfg, phase, less)}" for less in numbers[:1]]
        known += [f"set {words}" for words in ([] if numbers else _settings(cfg)) or _words(cfg, phase)]
        if known:
            return ", or ".join(known)
    return f"set {' or '.join(found)}" if (found := _settings(cfg)) else "take a smaller model, or more memory"


def _numbers(cfg: Config) -> dict[str, list[Less]]:
    """Numbers to lower, by phase, the cheapest first."""
    whole = cfg.longest_trained
    rollouts = cfg.data.prompts_per_step * cfg.sampling.n

    def number(part: str, name: str, used: int, least: int, label: str = "") -> list[Less]:
        settings: Any = getattr(cfg, part)
        now = getattr(settings, name, None)

        def put(value: int) -> Config:
            return replace(cfg, **{part: replace(settings, **{name: value})})

        return [Less(f"{label or part}.{name}", now, used, least, put)] if isinstance(now, int) else []

    longest = number("sampling", "max_tokens", cfg.sampling.max_tokens, 1)
    at_once = number("rollout", "batch_size" if isinstance(cfg.rollout, Hf) else "max_num_seqs", rollouts, 1)
    micro = number("optim", "micro_tokens", rollouts * whole, whole)
    return {
        "generate": [*at_once, *longest],
        "engine's scores": number("rollout", "score_tokens", rollouts * whole, whole),
        "eval": at_once,
        "reference": number("reference", "micro_tokens", rollouts * whole, whole),
        "score": number("teacher", "micro_tokens", rollouts * whole, whole),
        "learner's scores": micro,
        "gradients": micro,
        ONE: longest,
        "data": number("data", "prompts_per_step", cfg.data.prompts_per_step, 1),
        "verify": number("data", "prompts_per_step", cfg.data.prompts_per_step, 1),
    }


def _words(cfg: Config, phase: str) -> Iterator[str]:
    """Other settings that take less in a phase."""
    if phase in (ONE, "update") and not cfg.student.gradient_checkpointing:
        yield "student.gradient_checkpointing=true"
    if phase in (ONE, "update", "learner", "checkpoint") and cfg.student.lora is None:
        yield "student=lora"
    if phase in ("teacher", "score") and isinstance(t := cfg.teacher, LocalTeacher):
        yield from ["teacher.quantization=int8"] if t.quantization is None else []
    if phase in ("engine", "push") and getattr(cfg.rollout, "dtype", "auto") == "float32":
        yield "rollout.dtype=bfloat16 with student.dtype=bfloat16"


def _settings(cfg: Config) -> list[str]:
    """The cheapest settings with which the plan finds room, where it finds none with those of the run."""
    try:
        from opd.plan.advice import attempts
        from opd.plan.crew import crew_of
        from opd.plan.here import machine
        from opd.plan.layout import layout_of
        from opd.plan.memory import memory

        card, layout = machine(), layout_of(cfg, None)

        def fits(config: Config) -> bool:
            return all(device.fits for device in memory(crew_of(config, None), card, layout))

        tried = () if fits(cfg) else attempts(cfg, layout, 2)
        return next(([" ".join(c.setting for c in some)] for some, config in tried if fits(config)), [])
    except Exception:  # in want of memory, or of a card or model that a plan is made for
        return []


def _engine(cfg: Config, asked: str) -> str:
    """What vLLM's own figures come to, where it gives some; else less for its cache."""
    r = cfg.rollout
    if not isinstance(r, Vllm):
        return ""
    free = FREE.search(asked)
    if needed := NEEDED.search(asked):
        most = math.ceil(float(needed[1]) * 100 + 1) / 100
        return f"set rollout.memory_gb={most:g}, which one sequence of the greatest length takes, or lower max_tokens"
    if free and "utilization" in asked:
        return f"set rollout.gpu_memory_utilization={math.floor(float(free[1]) / float(free[2]) * 100) / 100:g}"
    if free:
        return f"lower rollout.memory_gb={r.memory_gb or 1:g} to {math.floor(float(free[1]) * 9) / 10:g}"
    if "no available memory" in asked:
        return f"raise rollout.gpu_memory_utilization={r.gpu_memory_utilization:g}, which the weights alone take"
    from opd.plan.here import machine

    if machine().cpu:
        return f"lower rollout.memory_gb={r.memory_gb or 1:g} to {(r.memory_gb or 1) / 2:g}"
    return f"lower rollout.gpu_memory_utilization={r.gpu_memory_utilization:g} to {r.gpu_memory_utilization / 2:g}"


def _fitting(cfg: Config, phase: str, less: Less) -> int:
    """The largest of its values with which the plan finds room where it finds none now; else half of what is used."""
    known = {"gradients": "update", "score": "score"}.get(phase)
    if known is None:
        return less.values[0]
    try:
        return next((v for v in _planned(cfg, known, less)), less.values[0])
    except Exception:  # likewise: half is a good guess
        return less.values[0]


def _planned(cfg: Config, phase: str, less: Less) -> Iterator[int]:
    from opd.plan.crew import crew_of
    from opd.plan.here import machine
    from opd.plan.layout import layout_of
    from opd.plan.memory import memory

    card, layout = machine(), layout_of(cfg, None)

    def fits(config: Config) -> bool:
        device = memory(crew_of(config, None), card, layout)[0]
        return sum(device.phases[phase].values()) <= device.capacity

    if not fits(cfg):
        yield from (value for value in less.values if fits(less.put(value)))
