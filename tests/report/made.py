"""Run folders written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from opd.report.record import Record, read_records
from opd.run.directory import RunFolder
from opd.run.transcripts import Token, Transcript, write_transcripts
from opd.types import Example, Judgement, Prompt, Rollout, Scored


class Words:
    """A tokenizer of given words: what a transcript's writer asks of one."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def decode(self, ids: Sequence[int], **how: bool) -> str:
        return "".join(self.words[i] for i in ids)

    def texts(self, ids: Sequence[int]) -> list[str]:
        return [self.words[i] for i in ids]


def judged(prompt: str, ids: Sequence[int], mu: Sequence[float], q: Sequence[float], top: bool = True) -> Scored:
    """A rollout with log-probs as given; the teacher's two likeliest tokens are always 0 and 1, at -0.25 and -2."""
    rollout = Rollout(
        Prompt(Example(prompt, ({"role": "user", "content": prompt},)), (0,)), tuple(ids), tuple(mu), truncated=False
    )
    shape = (len(ids), 1)
    told = (torch.tensor([[0, 1]]).repeat(shape), torch.tensor([[-0.25, -2.0]]).repeat(shape)) if top else (None, None)
    return Scored(rollout, Judgement(torch.tensor(list(q)), None, *told), reward=1.0)


def transcript(prompt: str, differences: Sequence[float]) -> Transcript:
    """A completion whose tokens have these disagreements, all trained."""
    tokens = tuple(Token("x", -1.0, -1.0 - d, True) for d in differences)
    return Transcript(prompt, prompt, "x" * len(tokens), 1.0, False, "student", tokens)


def save_run(
    folder: Path, rows: Sequence[Mapping[str, Any]], settings: str = "name: made\nsteps: 2\noptim: {lr: 0.1}\n",
    scored: Mapping[int, Sequence[Scored]] | None = None, words: Words | None = None,
) -> RunFolder:  # fmt: skip
    """A run directory with these lines of metrics, and rollouts by step."""
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.config.write_text(settings)
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = words or Words("a", "b")
    for step, items in (scored or {}).items():
        write_transcripts(run.rollouts, step, items, words, words.texts)
    return run


def record(folder: Path, rows: Sequence[Mapping[str, Any]], **others: Any) -> Record:
    """The same, read."""
    return read_records([save_run(folder, rows, **others)])[0]
