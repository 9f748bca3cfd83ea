"""Hand-written engines, tasks and desks that the tests of sources share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from opd.protocols import Task
from opd.sources.student import StudentSource
from opd.tasks.arithmetic import Arithmetic
from opd.types import Example, Message, Prompt, Rollout, Sampling, TokenPair, Weights
from opd.writing import Desk, Sampler, Writer
from tests.tiny import char_tokenizer

STOP = 1


@dataclass
class TableEngine:
    """An engine whose next token depends on the last one alone, by a table of logits [V, V]."""

    table: np.ndarray
    shown: list[Prompt] = field(default_factory=list)
    """Every prompt that it was asked to complete."""

    def log_p(self, last: int) -> np.ndarray:
        row = self.table[last]
        return row - np.logaddexp.reduce(row)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        owners = [p for p in prompts for _ in range(sampling.n)]
        self.shown += owners
        places = sampling.places or range(len(owners))
        return [self._one(p, sampling, i) for i, p in zip(places, owners, strict=True)]

    def _one(self, prompt: Prompt, sampling: Sampling, place: int) -> Rollout:
        rng = np.random.default_rng([sampling.seed, place])
        tokens, logprobs, last = [], [], prompt.tokens[-1]
        while len(tokens) < sampling.max_tokens and last not in sampling.stop:
            log_p = self.log_p(last)
            last = int(rng.choice(len(log_p), p=np.exp(log_p)))
            tokens.append(last)
            logprobs.append(float(log_p[last]))
        return Rollout(prompt, tuple(tokens), tuple(logprobs), last not in sampling.stop)

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        return [[float(self.log_p(before)[t]) for before, t in zip((p[-1], *c), c, strict=False)] for p, c in sequences]

    def load_weights(self, weights: Weights, version: int) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to free."""


@dataclass
class ScriptedEngine(TableEngine):
    """An engine that writes what a function of the text so far says; each character costs a nat."""

    tokenizer: Any = None
    script: Callable[[str], str] = lambda text: ""

    def _one(self, prompt: Prompt, sampling: Sampling, place: int) -> Rollout:
        text = self.script(self.tokenizer.decode(list(prompt.tokens)))
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], *sampling.stop[:1]]
        tokens = tuple(ids[: sampling.max_tokens])
        return Rollout(prompt, tokens, (-1.0,) * len(tokens), len(ids) > sampling.max_tokens)


@dataclass(frozen=True)
class Talkative(Arithmetic):
    """Sums whose environment has something to say to whatever was written."""

    def reply(self, example: Example, messages: Sequence[Message]) -> Sequence[Message] | None:
        return [{"role": "user", "content": "1+1:"}]


class Moody(Arithmetic):
    """Sums whose environment depends on more than what was written."""

    def reply(self, example: Example, messages: Sequence[Message]) -> Sequence[Message] | None:
        return [{"role": "user", "content": secrets.choice(("1+1:", "2+2:", "3+3:"))}]


@dataclass(frozen=True)
class Whim(StudentSource):
    """A source that writes one thing here and another there."""

    def start(self, desk: Desk) -> Writer:
        return WhimWriter(desk.engine, 2 + desk.team.rank)


@dataclass(frozen=True)
class WhimWriter:
    """Puts a token of its own behind what the engine writes."""

    engine: Sampler
    own: int

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        drawn, more = self.engine.sample(prompts, sampling), (self.own,)
        return [replace(r, tokens=r.tokens[:-1] + more) if r.tokens else r for r in drawn]


def make_desk(
    engine: Sampler,
    teacher: Sampler | None = None,
    tokenizer: Any = None,
    tasks: Mapping[str, Task] | None = None,
    read: Callable[[Sequence[Prompt]], list[Sequence[int]]] = lambda prompts: [p.tokens for p in prompts],
) -> Desk:
    """A desk over hand-written parts."""

    def teacher_engine() -> Sampler:
        assert teacher is not None
        return teacher

    known = tasks or {"": Arithmetic()}
    return Desk(engine, teacher_engine, read, tokenizer or char_tokenizer(), lambda example: known[example.task])


def tables(seed: int = 0, size: int = 45) -> tuple[TableEngine, TableEngine]:
    """A student and a teacher of random tables."""
    rng = np.random.default_rng(seed)
    return TableEngine(rng.normal(size=(size, size))), TableEngine(rng.normal(size=(size, size)))
