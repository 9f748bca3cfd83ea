"""Trains on the prompts that the teacher can answer itself: a prompt's samples of the teacher are judged first.

    q(x) = 1/K sum_k r(x, y_k),  y_k ~ teacher(. | x);   x is trained where q(x) >= least

Source: TGOPD, "Verify Before You Distill: Prompt-Level Teacher Gating for On-Policy Distillation", 2026 (arXiv
2609.02998), with K = 3 and two of three right. Claim: above plain distillation in all six of its settings (mathematics,
code, instructions; 4B and 35B), most in code, where the teacher's own confidence says hardly anything of whether it is
right (AUROC 0.51; 0.73 in mathematics). Where the gate is closed it falls back on GRPO; its ablation has nine tenths of
the gain from closing it alone (a mean gain of 1.08 points, 1.20 with the fallback).

Left open, and chosen here: a closed prompt trains nothing, or others are tried in its place (`redraws`). A prompt is
judged once in a run, as long as teacher, reading and verifier stay what they are, by seeds that depend on the run's and
on the prompt alone; the paper judges anew whenever a prompt comes up. `by: confidence` is for tasks without a verifier,
and is the mean of `exp(1/T sum_t log q(y_t))`, the geometric mean of what the teacher gave its own tokens; the paper
warns of it. `least: 0` is the source without a gate.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import exp, fsum, isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from opd.devices.team import first_rank
from opd.disk import added_to, writing
from opd.models.fingerprint import fingerprint
from opd.plain import plain
from opd.seeds import derive
from opd.sources.around import Around, AroundWriter, rounds
from opd.sources.parts import saying
from opd.sources.teacher import as_read, known_to_student
from opd.types import Prompt, Rollout, Sampling
from opd.writing import Desk, Sampler, Writer

FILE = "teacher_solves.jsonl"
"""In the run's folder: what was found of each prompt."""


@dataclass(frozen=True, kw_only=True)
class Gated(Around):
    """Has another source write, of prompts that the teacher answers well; others train nothing, or are replaced."""

    by: Literal["reward", "confidence"] = "reward"
    """What the teacher's samples are judged by: the task's verifier, or how likely it finds them itself."""
    samples: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Of the teacher's, of each prompt, once in a run."""
    least: float = 0.6
    """A prompt is trained where their mean is at least this: with three samples two of three."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    """The teacher's while it is judged."""
    redraws: Annotated[int, Field(ge=0, le=1000)] = 0
    """So many others are tried in the place of a prompt that the teacher does not answer; only then is one written of
    which nothing is trained."""

    def __post_init__(self) -> None:
        """Refuse what is no source."""
        super().__post_init__()
        if inner := saying(self.source, "picks"):
            raise ValueError(
                f"source={inner}: it takes prompts that the teacher would not be asked about; allowed is the reverse, "
                f"this as the source of {inner}"
            )

    @property
    def verifies(self) -> bool:
        """Whether a task's verifier is asked."""
        return self.by == "reward"

    @property
    def picks(self) -> bool:
        """Whether it takes other prompts than those that it is given."""
        return self.redraws > 0

    def start(self, desk: Desk) -> Writer:
        """Start who writes, and the teacher's engine. What is written is changed before it is handed over."""
        inner = self.source.start(replace(desk, finished=lambda rollout: None))
        return GatedWriter(
            self, inner, desk, desk.teacher_engine(), fingerprint(desk.teacher_model()), Found.read(desk)
        )


@dataclass(frozen=True)
class GatedWriter(AroundWriter):
    """A started source, and a teacher that is asked first."""

    settings: Gated
    teacher: Sampler
    identity: list[Any]
    """What tells the teacher's checkpoint from others."""
    found: Found

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Write `n` completions of each prompt that the teacher answers, or of others in its place.

        Raises:
            UserError: a task has no verifier.
        """
        return (self if sampling.trial is None else self._aside(sampling))._written(prompts, sampling)

    def _aside(self, trial: Sampling) -> GatedWriter:
        """The same that knows of no prompt, asks for as few tokens as a trial, and whose findings are not kept."""
        short = replace(self.desk.sampling, max_tokens=trial.max_tokens)
        return replace(self, desk=replace(self.desk, sampling=short, folder=None), found=Found())

    def _written(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        chosen, tries = list(prompts), [0] * len(prompts)
        opened, beside = self._ask(chosen)
        for round_ in rounds(self.settings.redraws, sampling):
            closed = [i for i, open_ in enumerate(opened) if not open_]
            if not closed:
                break
            for i in closed:
                chosen[i] = self.desk.another(prompts[i], derive(sampling.seed, "gate", round_, i))
                tries[i] += 1
            for i, open_, asked in zip(closed, *self._ask([chosen[i] for i in closed]), strict=True):
                opened[i], beside[i] = open_, [*beside[i], *asked]
        written = self.source.sample(chosen, sampling)
        return [
            replace(
                r,
                trained=r.trained if opened[i] else (False,) * len(r.tokens),
                tries=r.tries + tries[i],
                beside=(*(probe(b) for b in beside[i] if place % sampling.n == 0), *r.beside),
            )
            for place, r in enumerate(written) for i in [place // sampling.n]
        ]  # fmt: skip

    def _ask(self, prompts: Sequence[Prompt]) -> tuple[list[bool], list[list[Rollout]]]:
        """Whether each prompt is trained, and what the teacher has written for those that it was not yet asked.

        Its samples stand at the first place of each prompt.
        """
        s, shown = self.settings, as_read(self.desk.read, prompts)
        keys = [self._key(prompt, read) for prompt, read in zip(prompts, shown, strict=True)]
        places = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self.found.values}
        asked = sorted(places.values())
        out: list[list[Rollout]] = [[] for _ in prompts]
        if asked:
            seeds = [derive(0, prompts[i].example.id, k, bits=32) for i in asked for k in range(s.samples)]
            drawn = replace(self._drawn, places=tuple(seeds))
            written = [known_to_student(self.desk, r) for r in self.teacher.sample([shown[i] for i in asked], drawn)]
            if s.by == "confidence":
                values = [exp(fsum(r.logprobs) / max(1, len(r.tokens))) for r in written]
            else:
                values = self.rewards(written, ", or source.by=confidence")
            rows = []
            for k, i in enumerate(asked):
                own = slice(k * s.samples, (k + 1) * s.samples)
                out[i] = list(written[own])
                rows.append((keys[i], prompts[i].example.id, fsum(values[own]) / s.samples))
            self.found.add(rows, self.desk)
        return [self.found.values[key] >= s.least for key in keys], out

    @property
    def _drawn(self) -> Sampling:
        """How the teacher writes."""
        return replace(self.desk.sampling, n=self.settings.samples, temperature=self.settings.temperature)

    def _key(self, prompt: Prompt, shown: Prompt) -> str:
        """What a finding depends on: who writes, what it reads and how it draws, and what that is compared with."""
        example, by = prompt.example, self.settings.by
        judge = [example.answer, example.meta, *settings_of(self.desk.task(example))] if by == "reward" else []
        asked = [example.id, prompt.tokens, shown.tokens, vars(self._drawn), by, judge, self.identity]
        text = json.dumps(asked, skipkeys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def settings_of(task: Any) -> tuple[str, dict[str, Any]]:
    """What a task's verdicts depend on beside the example: its kind, and its settings."""
    kind = type(task)
    own = {f.name: getattr(task, f.name) for f in fields(task)} if is_dataclass(task) else {}
    return f"{kind.__module__}.{kind.__qualname__}", own


@dataclass
class Found:
    """How well the teacher does on prompts, by their keys; kept in the run's folder."""

    values: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, desk: Desk) -> Found:
        """What an earlier process of the run has found; of a line that is damaged the teacher is asked again."""

        def lines() -> list[bytes]:
            file = desk.folder / FILE if desk.folder else None
            return file.read_bytes().splitlines() if file and file.is_file() else []

        found = cls()
        for line in first_rank(desk.team, lines):
            with suppress(ValueError):
                match plain(line):
                    case {"key": str(key), "value": int() | float() as value} if isfinite(value):
                        found.values[key] = float(value)
        return found

    def add(self, rows: Sequence[tuple[str, str, float]], desk: Desk) -> None:
        """Remember rows of key, name and value, in the folder, too."""
        self.values.update({key: value for key, _, value in rows})
        if desk.team.rank == 0 and desk.folder is not None:
            _append(desk.folder / FILE, rows)


def _append(file: Path, rows: Sequence[tuple[str, str, float]]) -> None:
    with writing(file), added_to(file) as out:
        if out.seek(0, os.SEEK_END):
            out.seek(-1, os.SEEK_END)
            if out.read() != b"\n":  # a process was killed in the middle of a line
                out.write(b"\n")
        out.writelines(f"{json.dumps({'key': k, 'id': name, 'value': v})}\n".encode() for k, name, v in rows)


def probe(rollout: Rollout) -> tuple[Literal["student", "teacher"], int, int]:
    """A sample of the teacher's, as it is counted."""
    return "teacher", len(rollout.prompt.tokens), len(rollout.tokens)
