"""Engines of tests with real models, importable where their processes start."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from opd.rollout.hf import Hf, HfSampler
from opd.types import Pretrained, Prompt, Rollout, Sampling, Weights
from tests.rollout.apart.moods import Moods


@dataclass(frozen=True)
class Moody(Hf):
    """A transformers engine that some prompts upset; a file says how often."""

    folder: str = ""
    """A file for every time."""
    times: int = 1

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> HfSampler:
        sampler = super().start(model, max_len=max_len, seed=seed)
        sampler.sample = Moods(self.folder, self.times).upset(sampler.sample)
        return sampler


@dataclass(frozen=True)
class Slow(Hf):
    """Takes its time to write, so that a signal meets it at that."""

    seconds: float = 1.0

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> HfSampler:
        sampler = super().start(model, max_len=max_len, seed=seed)
        at_once = sampler.sample

        def sample(prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
            time.sleep(self.seconds)
            return at_once(prompts, sampling)

        sampler.sample = sample
        return sampler


@dataclass(frozen=True)
class Hoarder(Hf):
    """Takes new weights all at once, when the last one is there: as vLLM does with the weights of a layer."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> HfSampler:
        sampler = super().start(model, max_len=max_len, seed=seed)
        whole = sampler.load_weights

        def load_weights(weights: Weights, version: int) -> None:
            held = list(weights)
            time.sleep(0.2)
            whole(held, version)

        sampler.load_weights = load_weights
        return sampler
