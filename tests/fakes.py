"""Hand-written stand-ins for parts of a run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from opd.devices.team import Solo
from opd.needs import Needs
from opd.rollout.hf import Hf, HfSampler
from opd.stream import in_order, stream
from opd.teachers.local import LocalScorer, LocalTeacher
from opd.teaching import Pupil, Scorer
from opd.types import Judgement, Pretrained, Prompt, Rollout, Sampling, TokenPair, Weights
from opd.writing import Engine


@dataclass(frozen=True, kw_only=True)
class BrokenTeacher(LocalTeacher):
    """A local teacher whose log-probs become NaN after a number of calls."""

    good_calls: int = 4

    def start(self, pupil: Pupil) -> Scorer:
        return _Broken(super().start(pupil), self.good_calls)


class _Broken:
    def __init__(self, scorer: LocalScorer, good_calls: int) -> None:
        self.scorer, self.left = scorer, good_calls

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        self.left -= 1
        judged = self.scorer.score(rollouts, needs)
        if self.left >= 0:
            return judged
        return [replace(j, logprobs=torch.full_like(j.logprobs, float("nan"))) for j in judged]

    def __getattr__(self, name: str):
        return getattr(self.scorer, name)


@dataclass(frozen=True, kw_only=True)
class ForeignTeacher(LocalTeacher):
    """A local teacher to which all that the student writes is 14 nats less likely than it is."""

    def start(self, pupil: Pupil) -> Scorer:
        scorer = super().start(pupil)
        inner = scorer.score

        def score(rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
            return [replace(j, logprobs=j.logprobs - 14) for j in inner(rollouts, needs)]

        scorer.score = score
        return scorer


@dataclass(frozen=True, kw_only=True)
class SlowTeacher(LocalTeacher):
    """A local teacher that takes its time, so that a signal meets a step."""

    seconds: float = 0.5
    spared: int = 0
    """Calls before it does: the preflight's is one."""

    def start(self, pupil: Pupil) -> Scorer:
        scorer = super().start(pupil)
        inner = scorer.score
        calls = count()

        def score(rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
            time.sleep(self.seconds if next(calls) >= self.spared else 0)
            return inner(rollouts, needs)

        scorer.score = score
        return scorer


@dataclass(frozen=True, kw_only=True)
class HarmfulTeacher(LocalTeacher):
    """A local teacher that has a shell do something before one of its judgements, counted from 1."""

    harm: str = ""
    call: int = 1

    def start(self, pupil: Pupil) -> Scorer:
        scorer = super().start(pupil)
        inner, calls = scorer.score, count(1)

        def score(rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
            if next(calls) == self.call and self.harm and (code := os.system(self.harm)):
                raise AssertionError(f"the harm was not done: {code}")
            return inner(rollouts, needs)

        scorer.score = score
        return scorer


@dataclass(frozen=True, kw_only=True)
class DistantTeacher(LocalTeacher):
    """A teacher whose model is not to be seen, as one on a server."""

    def start(self, pupil: Pupil) -> Scorer:
        return _Distant(super().start(pupil))


class _Distant(Scorer):
    def __init__(self, scorer: LocalScorer) -> None:
        for name in ("score", "logits", "read", "notes", "close"):
            setattr(self, name, getattr(scorer, name))


@dataclass(frozen=True, kw_only=True)
class AskedTeacher(DistantTeacher):
    """The same, on no device of the run's; each process writes down what it asks for, and whether early."""

    folder: str

    def start(self, pupil: Pupil) -> Scorer:
        scorer, told = super().start(replace(pupil, team=Solo())), Path(self.folder) / f"{os.getpid()}"
        inner, lock = scorer.score, threading.Lock()

        def score(rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
            late = threading.current_thread() is threading.main_thread()
            with lock, told.open("a") as file:
                file.writelines(f"{'late' if late else 'early'} {r.prompt.tokens} {r.tokens}\n" for r in rollouts)
                return inner(rollouts, needs)

        scorer.score, scorer.place = score, "elsewhere"
        return scorer


@dataclass(frozen=True)
class Frail:
    """Any engine that fails now and then: its n-th call, over all that were started, after some completions."""

    engine: Engine
    calls: list[str]
    """What was asked for, in order."""
    fails: frozenset[int]
    gives: int = 0
    error: Exception = field(default_factory=lambda: KeyError("it broke"))

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Any:
        """Start the engine; its start is a call, too."""
        sampler: Any = self.engine.start(model, max_len=max_len, seed=seed)
        self._called("start")
        whole, score, load = partial(stream, sampler), sampler.logprobs, sampler.load_weights

        def written(prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Rollout]]:
            asked = len(prompts) * sampling.n
            fails = self._called(f"stream {asked}", raises=False)
            for given, found in enumerate(whole(prompts, sampling)):
                if fails and given == self.gives:
                    raise self.error
                yield found

        def scored(sequences: Sequence[TokenPair]) -> list[list[float]]:
            self._called("logprobs")
            return score(sequences)

        def loaded(weights: Weights, version: int) -> None:
            self._called(f"load_weights {version}")
            load(weights, version)

        return Broken(written, scored, loaded, sampler)

    def _called(self, what: str, raises: bool = True) -> bool:
        fails = len(self.calls) in self.fails
        self.calls.append(what)
        if fails and raises:
            raise self.error
        return fails


@dataclass
class Broken:
    """What `Frail` starts."""

    stream: Any
    logprobs: Any
    load_weights: Any
    sampler: Any

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        return in_order(self.stream(prompts, sampling))

    def close(self) -> None:
        self.sampler.close()


@dataclass(frozen=True)
class FrailHf(Hf):
    """A transformers engine whose fifth and ninth calls fail, of those of all that were started."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Any:
        return Frail(Hf(**vars(self)), FRAIL, frozenset({4, 8}), gives=2).start(model, max_len=max_len, seed=seed)


FRAIL: list[str] = []
"""What those have been asked for."""


@dataclass(frozen=True)
class Forgetful(Hf):
    """A transformers engine that keeps some of its old weights at a push."""

    keeps: str = "mlp"
    """Part of their names."""
    good_pushes: int = 0
    """So many pushes arrive whole."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> HfSampler:
        sampler = super().start(model, max_len=max_len, seed=seed)
        whole, left = sampler.load_weights, self.good_pushes

        def load_weights(weights: Weights, version: int) -> None:
            nonlocal left
            left -= 1
            old = {name: tensor.clone() for name, tensor in sampler._network.state_dict().items()}
            whole(((n, old[n] if self.keeps in n and left < 0 else t) for n, t in weights), version)

        sampler.load_weights = load_weights
        return sampler
