"""What a step cost: tokens, and operations of student and teacher; `Recorder` adds the steps up.

Evaluations and the preflight are in the seconds, under phases of their own, and not in tokens and operations. Each
completion is counted with its prompt, though an engine that keeps prefixes reads a prompt once for all of its samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from opd.config.settings import Config
from opd.judges import Judges
from opd.learner.student import Student
from opd.models.heads import SplitModel
from opd.protocols import Scorer
from opd.run.cost import Architecture, Flops, Lengths, backward, forward
from opd.sources.dataset import DatasetSource
from opd.sources.teacher import TeacherSource
from opd.sources.teacher_mixed import TeacherMixed
from opd.teachers.none import SilentScorer
from opd.teachers.several import RoutedScorer, WeightedScorer
from opd.types import Rollout, Scored

PREFIX = "cost/"


@dataclass(frozen=True)
class Ledger:
    """Whose work is counted."""

    config: Config
    student: Student
    judges: Judges

    def step(self, scored: Sequence[Scored]) -> dict[str, float]:
        """Tokens and operations of one step, under the names of `metrics.jsonl`; NaN: not known."""
        rollouts = [s.rollout for s in scored if s.rollout.tokens]
        out = self._generate(rollouts) | self._score(rollouts) | self._update(rollouts)
        student = ("generate_flops_student", "update_flops_forward", "update_flops_backward")
        teacher = ("generate_flops_teacher", "score_flops_teacher", "update_flops_teacher")
        out["flops_student"] = math.fsum(out[name] for name in student)
        out["flops_teacher"] = sum(out[name] for name in teacher)
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
        splits = [self.student.split, *(s for _, s in self._known())]
        places = {s.head.weight.device for s in splits if s is not None}
        return max(1, len({p for p in places if p.type != "cpu"}))

    def notes(self) -> list[str]:
        """Whose operations are not counted."""
        why = "it is elsewhere, or does more than linear layers and attention that can be counted"
        models = {"student": self.student.split} | dict(self._known())
        out = [f"cost: no FLOPs of the {name}: {why}" for name, s in models.items() if architecture(s) is None]
        if math.isnan(weights_of_adapters(self.student.model)):
            out.append("cost: no FLOPs of updates: adapters on other than linear layers are not counted")
        return out

    def _known(self) -> Iterator[tuple[str, SplitModel | None]]:
        for name, judge in self.judges.models.items():
            parts = getattr(judge, "scorers", {"": judge})
            for part, scorer in parts.items():
                if not isinstance(scorer, SilentScorer):
                    yield f"{name} {part}".strip(), split_of(scorer)

    def _generate(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        written = [(writers(self.config.source, r.origin), r) for r in rollouts]
        own = [r for who, r in written if "student" in who]
        theirs = [r for who, r in written if "teacher" in who]
        sampled = [r for who, r in written if who]
        # The engine has adapters merged into its weights.
        student = flops(architecture(self.student.split), read_by_student(own), sum(map(trained, own)))
        return {
            "generate_tokens": sum(map(trained, sampled)),
            "generate_prompt_tokens": sum(len(r.prompt.tokens) for r in sampled),
            "generate_flops_student": student.total,
            "generate_flops_teacher": sum(f.total for _, f in self._read(self.judges.teacher, theirs)),
        }

    def _score(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        asked = [self.judges.teacher]
        if self.judges.reference is not None and self.judges.needs.reference:
            asked.append(self.judges.reference)
        done = [reading for judge in asked for reading in self._read(judge, rollouts)]
        lengths = [pair for read, _ in done for pair in read]
        return {
            "score_tokens": sum(completion for _, completion in lengths),
            "score_prompt_tokens": sum(prompt for prompt, _ in lengths),
            "score_flops_teacher": sum(f.total for _, f in done),
        }

    def _update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        s = self.config.student
        own, adapters = architecture(self.student.split), weights_of_adapters(self.student.model)
        there = flops(own, read_by_student(rollouts), sum(map(trained, rollouts)), adapters)
        again = 0.0
        if self.judges.needs.distribution:  # the teacher's head once more, on its hidden states
            for scorer, asked in asked_of(self.judges.teacher, rollouts):
                again += flops(architecture(split_of(scorer)), [], sum(map(trained, asked))).head
        return {
            "update_tokens": sum(map(trained, rollouts)),
            "update_prompt_tokens": sum(len(r.prompt.tokens) for r in rollouts),
            "update_flops_forward": there.total,
            "update_flops_backward": backward(there, frozen=s.lora is not None, checkpointing=s.gradient_checkpointing),
            "update_flops_teacher": again,
        }

    def _read(self, judge: Scorer, rollouts: Sequence[Rollout]) -> Iterator[tuple[list[Lengths], Flops]]:
        """Lengths of what each of a judge's models reads, and its operations, the head on every completion token."""
        for scorer, own in asked_of(judge, rollouts):
            lengths = read_by(scorer, own)
            yield lengths, flops(architecture(split_of(scorer)), lengths, sum(c for _, c in lengths))


def flops(a: Architecture | None, lengths: Sequence[Lengths], rows: int, adapters: float = 0) -> Flops:
    """Operations of a forward pass; NaN where the architecture is not known and there is something to do."""
    if a is None:
        return Flops(*[math.nan] * 4) if lengths or rows else Flops()
    return forward(a, lengths, rows, adapters)


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


def split_of(scorer: Any) -> SplitModel | None:
    """The model of a scorer, its own or the learner's; None for one that is elsewhere."""
    learner = getattr(scorer, "learner", None)
    split: SplitModel | None = getattr(scorer, "split", None) if learner is None else learner.split
    return split


def asked_of(judge: Scorer, rollouts: Sequence[Rollout]) -> list[tuple[Scorer, list[Rollout]]]:
    """Which rollouts each of a judge's models is asked for; none of one that has nothing to say."""
    if isinstance(judge, SilentScorer):
        return []
    if isinstance(judge, WeightedScorer):
        return [pair for scorer in judge.scorers.values() for pair in asked_of(scorer, rollouts)]
    if isinstance(judge, RoutedScorer):
        theirs: dict[str, list[Rollout]] = {}
        for r in rollouts:
            theirs.setdefault(judge.route(r.prompt.example), []).append(r)
        return [pair for name, own in theirs.items() for pair in asked_of(judge.scorers[name], own)]
    return [(judge, list(rollouts))]


def read_by(scorer: Any, rollouts: Sequence[Rollout]) -> list[Lengths]:
    """Lengths of prompts and completions in the scorer's own reading and its own tokens."""
    distinct = list({id(r.prompt): r.prompt for r in rollouts}.values())
    prompts = {id(p): len(ids) for p, ids in zip(distinct, scorer.read(distinct), strict=True)} if distinct else {}
    lexicon = getattr(scorer, "lexicon", None)
    completions = [r.tokens if lexicon is None else lexicon.translate(r).ids for r in rollouts]
    return [(prompts[id(r.prompt)], len(c)) for r, c in zip(rollouts, completions, strict=True)]


def read_by_student(rollouts: Sequence[Rollout]) -> list[Lengths]:
    """Lengths of prompts and completions as the student reads them."""
    return [(len(r.prompt.tokens), len(r.tokens)) for r in rollouts]


def trained(rollout: Rollout) -> int:
    """Tokens that are trained: not those of an environment."""
    return sum(rollout.mask)


def writers(source: Any, origin: str) -> frozenset[str]:
    """Which models wrote a rollout, by what the source calls its part; none: the dataset did."""
    parts = {**getattr(source, "parts", {}), **getattr(source, "tasks", {})}
    others = getattr(source, "others", None)
    if origin in parts:
        return writers(parts[origin], origin)
    if others is not None and origin in others.origins:
        return writers(others, origin)
    if parts:  # a mixture in a mixture, whose parts' names are lost: all that may have written
        inner = [*parts.values(), *([] if others is None else [others])]
        return frozenset().union(*(writers(part, origin) for part in inner))
    known = {DatasetSource: (), TeacherSource: ("teacher",), TeacherMixed: ("student", "teacher")}
    return frozenset(known.get(type(source), ("student",)))
