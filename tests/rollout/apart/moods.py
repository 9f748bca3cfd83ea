"""What upsets engines of tests, and one that is no more than its moods: its process starts without a library."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opd.types import Pretrained, Prompt, Rollout, RunError, Sampling, TokenPair, UserError, Weights

FATAL, SLOW, ODD, RUN, USER, ONCE = 40, 41, 42, 43, 44, 45
"""Prompts of one such token kill their engine once, hang once, raise something odd, RunError, UserError; once."""
Write = Callable[[Sequence[Prompt], Sampling], list[Rollout]]


@dataclass(frozen=True)
class Moods:
    """What happens to an engine at some prompts; a file says how often it has."""

    folder: str
    """A file for every time."""
    times: int

    def upset(self, write: Write) -> Write:
        """The same writing, but for such prompts."""

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
            return write(prompts, sampling)

        return sample

    def count(self) -> bool:
        """Whether it is to happen again."""
        before = len(list(Path(self.folder).iterdir()))
        (Path(self.folder) / str(before)).touch()
        return before < self.times


@dataclass(frozen=True)
class Plain:
    """An engine without a model, which ends every completion at once."""

    folder: str
    times: int = 1

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> PlainSampler:
        """Without a look at the model."""
        sampler = PlainSampler()
        sampler.sample = Moods(self.folder, self.times).upset(sampler.sample)
        return sampler


class PlainSampler:
    """It, started."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """One token each."""
        return [Rollout(prompt, (1,), (0.0,), truncated=False) for prompt in prompts for _ in range(sampling.n)]

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        """All are certain."""
        return [[0.0] * len(completion) for _, completion in sequences]

    def load_weights(self, weights: Weights, version: int) -> None:
        """There are none."""

    def close(self) -> None:
        """There is nothing to free."""
