"""What a step cost: tokens, and operations of student and teacher; `Recorder` adds the steps up.

Evaluations and the preflight are in the seconds, under phases of their own, and not in tokens and operations. Each
completion is counted with its prompt, though an engine that keeps prefixes reads a prompt once for all of its samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from opd.config.settings import Config
from opd.judges import Judges
from opd.learner.student import Student
from opd.models.heads import SplitModel
from opd.run.cost import Architecture, Flops, backward, forward
from opd.types import Reads, Rollout, Scored

PREFIX = "cost/"
WHO = ("student", "teacher")


@dataclass(frozen=True)
class Ledger:
    """Whose work is counted."""

    config: Config
    student: Student
    judges: Judges

    def step(self, scored: Sequence[Scored]) -> dict[str, float]:
        """Tokens and operations of one step, under the names of `metrics.jsonl`; NaN: not known."""
        rollouts = [s.rollout for s in scored if s.rollout.tokens]
        teacher = self.judges.teacher.reads([s.rollout for s in scored if s.rollout.tokens and not s.teacher.kept])
        out = self._generate(rollouts) | self._score(rollouts, teacher) | self._update(rollouts, teacher)
        for name, more in self._beside([s.rollout for s in scored]).items():
            out[name] += more
        student = ("generate_flops_student", "update_flops_forward", "update_flops_backward")
        theirs = ("generate_flops_teacher", "score_flops_teacher", "update_flops_teacher")
        out["flops_student"] = math.fsum(out[name] for name in student)
        out["flops_teacher"] = sum(out[name] for name in theirs)
        out["flops"] = out["flops_student"] + out["flops_teacher"]
        return {PREFIX + name: float(value) for name, value in out.items()}

    def times(self, row: Mapping[str, float]) -> dict[str, float]:
        """Seconds and device-seconds of each phase of a step, from its `perf/` figures."""
        ends = ("_tokens_s", "/step_s")
        phases = {k.removeprefix("perf/"): v for k, v in row.items() if k.startswith("perf/") and k.endswith("_s")}
        seconds = {k: v for k, v in phases.items() if not f"/{k}".endswith(ends)}
        seconds["other_s"] = max(0.0, row["perf/step_s"] - math.fsum(seconds.values()))
        seconds["total_s"] = row["perf/step_s"]
        held = {f"{name.removesuffix('_s')}_device_s": value * self.devices for name, value in seconds.items()}
        return {PREFIX + name: value for name, value in (seconds | held).items()}

    @property
    def devices(self) -> int:
        """Accelerators that the run holds, busy or not; 1 where there are none: the machine."""
        places = {s.head.weight.device for s in self._models().values() if s is not None}
        held = len({p for p in places if p.type != "cpu"}) * self.student.team.size
        if apart := self.config.devices.apart:
            from opd.rollout.apart.fleet import cards

            held += len(cards(apart.count * apart.tensor_parallel))
        return max(1, held)

    def notes(self) -> list[str]:
        """Whose operations are not counted."""
        why = "it is elsewhere, or does more than linear layers and attention that can be counted"
        out = [f"cost: no FLOPs of the {name}: {why}" for name, s in self._models().items() if architecture(s) is None]
        if math.isnan(weights_of_adapters(self.student.model)):
            out.append("cost: no FLOPs of updates: adapters on other than linear layers are not counted")
        return out

    def _models(self) -> dict[str, SplitModel | None]:
        """All models of the run by a name for people; None: it is elsewhere."""
        read = {name: judge.reads([]) for name, judge in self.judges.models.items()}
        judges = {f"{name} {r.name}".strip(): r.split for name, parts in read.items() for r in parts}
        return {"student": self.student.split} | judges

    def _generate(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        whole = [r if any(r.mask) else replace(r, trained=None) for r in rollouts]  # left out, and written all the same
        sampled = self._reads([r for r in whole if r.writers])
        student = self._reads([r for r in whole if "student" in r.writers])
        teacher = self.judges.teacher.reads([r for r in rollouts if "teacher" in r.writers])
        return {
            "generate_tokens": sampled.trained,
            "generate_prompt_tokens": prompts(sampled),
            "generate_flops_student": flops(student, student.trained).total,  # its engine has adapters merged
            "generate_flops_teacher": sum(flops(r, completions(r)).total for r in teacher),
        }

    def _beside(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """What was written and is not among the rollouts of the step."""
        named = {name: [(p, c) for r in rollouts for who, p, c in r.beside if who == name] for name in WHO}
        splits = [read.split for read in self.judges.teacher.reads([])] if named["teacher"] else []
        models = {"student": self.student.split, "teacher": splits[0] if len(splits) == 1 else None}
        reads = {name: Reads(lengths, sum(c for _, c in lengths), models[name]) for name, lengths in named.items()}
        return {
            "generate_tokens": sum(map(completions, reads.values())),
            "generate_prompt_tokens": sum(map(prompts, reads.values())),
            **{f"generate_flops_{name}": flops(read, read.trained).total for name, read in reads.items()},
        }

    def _score(self, rollouts: Sequence[Rollout], teacher: Sequence[Reads]) -> dict[str, float]:
        second = self.judges.reference if self.judges.needs.reference else None
        done = [*teacher, *([] if second is None else second.reads(rollouts))]
        return {
            "score_tokens": sum(map(completions, done)),
            "score_prompt_tokens": sum(map(prompts, done)),
            "score_flops_teacher": sum(flops(r, completions(r)).total for r in done),
        }

    def _update(self, rollouts: Sequence[Rollout], teacher: Sequence[Reads]) -> dict[str, float]:
        s, own = self.config.student, self._reads(rollouts)
        there = flops(own, own.trained, weights_of_adapters(self.student.model))
        # Its states are kept: only its head goes over them again.
        heads = [replace(r, lengths=()) for r in teacher] if self.judges.needs.distribution else []
        return {
            "update_tokens": own.trained,
            "update_prompt_tokens": prompts(own),
            "update_flops_forward": there.total * (2 if self.judges.needs.current else 1),
            "update_flops_backward": backward(there, frozen=s.lora is not None, checkpointing=s.gradient_checkpointing),
            "update_flops_teacher": sum(flops(r, r.trained).head for r in heads),
        }

    def _reads(self, rollouts: Sequence[Rollout]) -> Reads:
        """What the student reads of these."""
        return Reads.of(rollouts, [r.prompt.tokens for r in rollouts], self.student.split)


def flops(reads: Reads, rows: int, adapters: float = 0) -> Flops:
    """Operations of a forward pass, the head on so many rows; NaN where they are not known and there are any."""
    known = architecture(reads.split)
    if known is None:
        return Flops(*[math.nan] * 4) if reads.lengths or rows else Flops()
    return forward(known, reads.lengths, rows, adapters)


def prompts(reads: Reads) -> int:
    """Tokens of the prompts that are read."""
    return sum(prompt for prompt, _ in reads.lengths)


def completions(reads: Reads) -> int:
    """Tokens of the completions that are read."""
    return sum(completion for _, completion in reads.lengths)


def architecture(split: SplitModel | None) -> Architecture | None:
    """What a loaded model multiplies, without adapters and quantization; None where it is not all known."""
    if split is None:
        return None
    inner = split.model.get_base_model() if hasattr(split.model, "get_base_model") else split.model
    return Architecture.of(inner.config, type(inner))


def weights_of_adapters(model: Any) -> float:
    """Weights of low-rank adapters; NaN where a token meets a part of some, as it does of those on embeddings."""
    from transformers.pytorch_utils import Conv1D

    adapted = [m for m in model.modules() if hasattr(m, "lora_A")]
    if not all(isinstance(m.base_layer, (nn.Linear, Conv1D)) for m in adapted):
        return math.nan
    return sum(p.numel() for p in model.parameters() if p.requires_grad) if adapted else 0
