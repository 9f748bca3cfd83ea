"""Engines of tests, importable where their processes start."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opd.rollout.hf import Hf, HfSampler
from opd.types import Pretrained, Prompt, Rollout, RunError, Sampling, UserError, Weights

FATAL, SLOW, ODD, RUN, USER, ONCE = 40, 41, 42, 43, 44, 45
"""Prompts of one such token kill their engine once, hang once, raise something odd, RunError, UserError; once."""


@dataclass(frozen=True)
class Moody(Hf):
    """A transformers engine that some prompts upset; a file says how often."""

    folder: str = ""
    """A file for every time."""
    times: int = 1

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> HfSampler:
        sampler = super().start(model, max_len=max_len, seed=seed)
        whole = sampler.sample

        def sample(prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
            first = {prompt.tokens[0] for prompt in prompts}
            if FATAL in first and self.count():
                os.kill(os.getpid(), signal.SIGKILL)
            if SLOW in first and self.count():
                time.sleep(600)
            if ONCE in first and self.count():
                raise KeyError("once")
            for token, error in ((ODD, KeyError("odd")), (RUN, RunError("run")), (USER, UserError("user"))):
                if token in first:
                    raise error
            return whole(prompts, sampling)

        sampler.sample = sample
        return sampler

    def count(self) -> bool:
        """Whether it is to happen again."""
        before = len(list(Path(self.folder).iterdir()))
        (Path(self.folder) / str(before)).touch()
        return before < self.times


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
