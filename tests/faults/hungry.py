"""Parts of a run that are refused memory, each at a certain call, as libraries say it or as the system does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from opd.needs import Needs
from opd.objectives.reverse_kl import ReverseKL
from opd.rollout.hf import Hf
from opd.rollout.vllm import Vllm
from opd.teachers.local import LocalScorer, LocalTeacher
from opd.teaching import Pupil
from opd.tensors import Advantages, Completions, Tokens
from opd.types import Judgement, Pretrained, Prompt, Rollout, Sampling
from tests.faults.inputs import limit

Way = Literal["torch", "numpy", "python", "cuda", "limit"]
HUGE = 2**52
CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3.94 MiB is "
    "free. Including non-PyTorch memory, this process has 79.10 GiB memory in use. Of the allocated memory 70.00 GiB "
    "is allocated by PyTorch, and 1.00 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory "
    "is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


def refused(way: Way, room: int = 0) -> None:
    """Ask for more than there is; `limit`: only see that nothing, or `room`, is there for who asks next."""
    match way:
        case "torch":
            torch.empty(HUGE)
        case "numpy":
            np.empty(HUGE)
        case "python":
            bytearray(HUGE)
        case "cuda":
            raise torch.OutOfMemoryError(CUDA)
        case "limit":
            limit(room)


@dataclass
class Appetite:
    """Counts calls, and is refused memory at one of them, or from there on."""

    way: Way
    at: int
    always: bool = False
    calls: int = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at or (self.always and self.calls > self.at):
            refused(self.way)


@dataclass(frozen=True)
class HungryEngine(Hf):
    """A transformers engine."""

    way: Way = "torch"
    at: int = 0
    """The call of `sample`; 0: its start; -1: what comes after it."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Any:
        if self.at == 0:
            refused(self.way)
        sampler = super().start(model, max_len=max_len, seed=seed)
        return hungry(sampler, self.way, self.at)


@dataclass(frozen=True)
class HungryVllm(Vllm):
    """A vLLM engine."""

    way: Way = "limit"
    at: int = 0
    """The call of `sample`."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Any:
        return hungry(super().start(model, max_len=max_len, seed=seed), self.way, self.at)


def hungry(sampler: Any, way: Way, at: int) -> Any:
    """The same engine, which is refused memory."""
    name = "stream" if hasattr(sampler, "stream") else "sample"
    inner, eat = getattr(sampler, name), Appetite(way, at)

    def asked(prompts: Sequence[Prompt], sampling: Sampling) -> Any:
        eat()
        return inner(prompts, sampling)

    setattr(sampler, name, asked)
    if at < 0:
        refused(way)
    return sampler


@dataclass(frozen=True, kw_only=True)
class HungryTeacher(LocalTeacher):
    """A local teacher."""

    way: Way = "torch"
    call: Literal["start", "score", "state"] = "score"
    at: int = 1

    def start(self, pupil: Pupil) -> Any:
        if self.call == "start":
            refused(self.way)
        scorer = super().start(pupil)
        return Keeping(scorer, Appetite(self.way, self.at)) if self.call == "state" else self._scoring(scorer)

    def _scoring(self, scorer: LocalScorer) -> LocalScorer:
        inner, eat = scorer.score, Appetite(self.way, self.at)

        def score(rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
            eat()
            return inner(rollouts, needs)

        scorer.score = score
        return scorer


class Keeping:
    """A scorer that has something to save."""

    def __init__(self, scorer: LocalScorer, eat: Callable[[], None]) -> None:
        self.scorer, self.eat = scorer, eat

    def state(self) -> Mapping[str, torch.Tensor]:
        self.eat()
        return {"mean": torch.zeros(3)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scorer, name)


@dataclass(frozen=True, kw_only=True)
class HungryObjective(ReverseKL):
    """The default objective."""

    way: Way = "torch"
    at: int = 1
    """The chunk of logits that it is refused memory at."""
    always: bool = False
    room: int = 0
    """Bytes that are left from the first advantages on, with `way=limit`."""
    rank: int = 0
    """Of several, the one that is refused."""
    count: list[int] = field(default_factory=lambda: [0])

    def advantages(self, completions: Completions) -> Advantages:
        if self.way == "limit" and self.room:
            limit(self.room)
        return super().advantages(completions)

    def loss(self, tokens: Tokens) -> torch.Tensor:
        self.count[0] += 1
        now = self.count[0] == self.at or (self.always and self.count[0] > self.at)
        if now and self.rank == int(os.environ.get("RANK", "0")) and self.way != "limit":
            refused(self.way)
        return super().loss(tokens)
