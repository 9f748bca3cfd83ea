"""Everything that a run writes down: metrics, rollouts, evaluations; and what it tells the console and the trackers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from opd.config.settings import Config
from opd.console import Console, Sample
from opd.disk import whole, writing
from opd.evaluation.evaluate import Evaluation
from opd.needs import ALTERNATIVES
from opd.run.begun import BegunWith
from opd.run.checkpoint import CONFIG, Checkpoint
from opd.run.directory import RunFolder
from opd.run.health import Aims, Health
from opd.run.ledger import PREFIX, Ledger
from opd.run.metrics import Phases, peak_memory_gb, read_metrics
from opd.run.rows import NAME, MetricsFile
from opd.run.transcripts import write_transcripts
from opd.teaching import Stateful
from opd.text.chat import decode
from opd.text.pieces import token_texts
from opd.trackers import Trackers
from opd.types import Scored


class Recorder:
    """Opened once per process."""

    def __init__(
        self, run: RunFolder, cfg: Config, console: Console, phases: Phases, begun: Checkpoint | None, tokenizer: Any,
        ledger: Ledger,
    ) -> None:  # fmt: skip
        """Continue `metrics.jsonl` after the steps of the checkpoint that the run goes on from."""
        self.run, self.cfg, self.console, self.phases = run, cfg, console, phases
        self.tokenizer, self.ledger = tokenizer, ledger
        first, saved = (begun.step, begun.tensors(NAME)) if begun else (0, None)
        self.file = MetricsFile(run.metrics, first + 1 if first else 0, saved, console.warn)
        run.forget_after(first)
        self.kept: Mapping[str, Stateful] = {NAME: self.file} | (
            {CONFIG: BegunWith(run)} if run.config.is_file() else {}
        )
        """What belongs into checkpoints."""
        history = read_metrics(run.metrics) if first else []
        self.costs = {k: v for k, v in (history[-1] if history else {}).items() if k.startswith(PREFIX)}
        """What the run has cost so far, that of earlier processes included."""
        if history and not self.costs:
            console.say(f"cost: the steps to {first} were not counted, and are not in it")
        grows = cfg.sampling.horizon.steps is not None
        self.health = Health(run.health, Aims.of(cfg.objective.needs, cfg.source.policy, cfg.steps, grows), history)
        self.trackers = Trackers(cfg.log.trackers, run.path.name, asdict(cfg), run.path, first, console.warn)
        for where in self.trackers.where:
            console.say(f"tracker: {where}")
        console.begin(f"{run.path.name}, {cfg.computes}", cfg.steps, first, history)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files and the trackers, however the run ends."""
        self.file.close()
        self.trackers.close()

    def step(self, step: int, metrics: dict[str, float], scored: Sequence[Scored], last: bool = False) -> None:
        """Write one step's metrics everywhere, with the seconds of its phases; `step` counts from 1, 0 is before."""
        generated = metrics.get("rollout/tokens", 0.0)
        tokens = {"generate": generated, "score": generated, "update": metrics.get("optim/trained_tokens", 0.0)}
        row = metrics | self.phases.take(tokens) | {"perf/peak_memory_gb": peak_memory_gb()}
        for name, value in (self.ledger.step(scored) | self.ledger.times(row)).items():
            self.costs[name] = self.costs.get(name, 0.0) + value
        row |= self.costs
        self.file.write(step, row)
        self.trackers.log(row, step)
        self.console.step(step, row, self.sample(scored[step % len(scored)]) if scored else None)
        if (wrong := self.health.step(step, row, last)) is not None:
            self.console.verdicts(wrong, last=last)
        if scored and self.keeps(step):
            write_transcripts(self.run.rollouts, step, scored, self.tokenizer, partial(token_texts, self.tokenizer))

    def warn(self, text: str) -> None:
        """Say what must be seen."""
        self.console.warn(text)

    def keeps(self, step: int) -> bool:
        """Whether the rollouts of a step are written down."""
        every = self.cfg.log.rollouts_every
        return bool(every) and (step % every == 0 or step == 1)

    def alternatives(self, step: int) -> int:
        """How many of the teacher's likeliest tokens are to be written down; 0: none, or it gives none."""
        return min(ALTERNATIVES, self.cfg.teacher.provides.top_k) if self.keeps(step) else 0

    def sample(self, scored: Scored) -> Sample:
        """One completion for people, token by token with the teacher's disagreement."""
        r = scored.rollout
        pieces = [
            (self.tokenizer.decode([t]), mu - q if own else math.nan)
            for t, mu, q, own in zip(r.tokens, r.logprobs, scored.teacher.logprobs.tolist(), r.mask, strict=True)
        ]
        return Sample(
            r.prompt.example.messages[-1]["content"],
            decode(self.tokenizer, r.tokens, special=True),
            scored.reward,
            pieces,
        )

    def evaluation(self, name: str, step: int, result: Evaluation) -> None:
        """Write an evaluation's figures and samples to `eval/`."""
        write_evaluation(self.run.evals, f"{name}_step_{step:06d}", f"{name}, step {step}", result)


class Bystander(Recorder):
    """Of a rank that writes nothing: it only says what the others are asked for."""

    def __init__(self, run: RunFolder, cfg: Config, phases: Phases) -> None:
        self.run, self.cfg, self.phases, self.costs, self.kept = run, cfg, phases, {}, {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close."""

    def step(self, step: int, metrics: dict[str, float], scored: Sequence[Scored], last: bool = False) -> None:
        """Forget how long the phases took."""
        self.phases.take()

    def evaluation(self, name: str, step: int, result: Evaluation) -> None:
        """Leave it to the first rank."""

    def warn(self, text: str) -> None:
        """Likewise."""


def write_evaluation(folder: Path, file_name: str, name: str, result: Evaluation) -> None:
    """Write `FILE.json` (figures and how they were drawn) and `FILE.jsonl` (one line per completion) into a folder."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    drawn = {k: v for k, v in asdict(result.sampling).items() if k != "places"}  # of the whole
    summary = {"name": name, "metrics": result.metrics, "sampling": drawn, "prompts": prompts_of(result.samples)}
    with whole(folder / f"{file_name}.jsonl") as part, part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in result.samples)
    with whole(folder / f"{file_name}.json") as part:
        part.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def prompts_of(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many prompts an evaluation is of, and a digest of them: the same where, in any order, they are the same."""
    asked = sorted({(str(sample["id"]), str(sample["prompt"])) for sample in samples})
    return {"count": len(asked), "digest": hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}
