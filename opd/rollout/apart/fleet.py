"""Several engines, each in a process of its own, as one: what they write together is what one would have written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from opd.devices.gpus import machine_gpus
from opd.rollout.apart.kept import Kept
from opd.rollout.apart.process import EngineProcess
from opd.rollout.apart.watch import Watch
from opd.rollout.arrays import arrays_to_rollouts, arrays_to_rows, rows_to_arrays
from opd.stream import in_order
from opd.types import Pretrained, Prompt, Rollout, Sampling, TokenPair, UserError, Weights
from opd.writing import Engine, Spreading


@dataclass(frozen=True)
class Engines:
    """Settings of `count` engines that are apart; itself those of an engine."""

    engine: Engine
    """Of each."""
    count: int = 1
    threads: int = 1
    timeout: float = 1800.0
    """Seconds without an answer after which one is taken for dead, its start included."""
    restarts: int = 1
    """Times that one that fails or dies is started again for one request."""
    told: Callable[[str], None] = lambda words: None
    """Is told of it."""
    tensor_parallel: int = 1
    """Devices that the model of each is on."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Fleet:
        """Start them all at once.

        Raises:
            UserError: What one of them raised; or this is not Linux.
            RunError: One did not start.
        """
        if not hasattr(os, "memfd_create"):
            raise UserError(
                f"devices.engines={self.count}: they get weights through memory as only Linux has it; allowed is "
                "devices=one"
            )

        engine = self.engine
        if self.tensor_parallel > 1 and isinstance(engine, Spreading):
            engine = engine.spread(self.tensor_parallel)

        def one(number: int) -> EngineProcess:
            return EngineProcess(
                engine, Pretrained.of(model), max_len=max_len, seed=seed, threads=self.threads,
                env=card(number, self.count, self.tensor_parallel),
            )  # fmt: skip

        return Fleet(one, self.count, self.timeout, self.restarts, self.told)


def card(number: int, count: int, each: int = 1) -> dict[str, str]:
    """What an engine sees of this machine's GPUs: its own, or all where the learner would have none."""
    own = cards(count * each)[number * each : (number + 1) * each]
    return {"CUDA_VISIBLE_DEVICES": ",".join(own)} if own else {}


def cards(count: int) -> list[str]:
    """The GPUs that engines have for themselves, the last ones; none where the learner would have none."""
    import torch

    there = machine_gpus() or [str(i) for i in range(torch.cuda.device_count())]  # those of other makers
    return there[-count:] if len(there) > count else []


class Fleet:
    """Started engines."""

    def __init__(
        self, start: Callable[[int], EngineProcess], count: int, timeout: float, restarts: int,
        told: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._kept = Kept()
        self._spare: list[Kept] = []
        self._watch = Watch(start, count, timeout, self._renew, restarts, told)
        self._calls = threading.RLock()

    @property
    def pids(self) -> list[int]:
        """The processes, in the order of the engines."""
        return self._watch.pids

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `sampling.n` completions per prompt; see `opd.writing.Sampler`."""
        return in_order(self.stream(prompts, sampling))

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Rollout]]:
        """Draw the same, and give what an engine has finished while others still write; see `Streaming`."""
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        places = sampling.places or range(len(owners))
        parts = dealt(len(owners), self._watch.count)
        requests = {
            engine: (
                rows_to_arrays("prompts", [owners[i].tokens for i in part], np.int64),
                replace(sampling, n=1, places=tuple(places[i] for i in part)),
            )
            for engine, part in enumerate(parts)
            if part
        }
        with self._calls:
            for engine, answer in self._watch.ask("sample", requests):
                yield from zip(
                    parts[engine], arrays_to_rollouts(answer, [owners[i] for i in parts[engine]]), strict=True
                )

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        """Score given completions at temperature 1; see `opd.writing.Sampler`."""
        parts = evenly([len(p) + len(c) for p, c in sequences], self._watch.count)
        requests = {
            engine: (
                {
                    **rows_to_arrays("prompts", [sequences[i][0] for i in part], np.int64),
                    **rows_to_arrays("completions", [sequences[i][1] for i in part], np.int64),
                },
            )
            for engine, part in enumerate(parts)
            if part
        }
        scores: dict[int, list[float]] = {}
        with self._calls:
            for engine, answer in self._watch.ask("logprobs", requests):
                rows = [list(row or ()) for row in arrays_to_rows("logprobs", answer)]
                scores.update(zip(parts[engine], rows, strict=True))
        return [scores[i] for i in range(len(sequences))]

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights of all; see `opd.writing.Sampler`."""
        self.stage(weights, version)()

    def stage(self, weights: Weights, version: int) -> Callable[[], None]:
        """Copy the weights now; what is returned hands the copy to the engines, and may be called elsewhere and later.

        The newest copy that was handed over is kept: an engine that takes a dead one's place starts from it, at a time
        when the learner's own weights have long changed.
        """
        kept = self._spare.pop() if self._spare else Kept()
        kept.fill(weights, version)
        return partial(self._load, kept)

    def close(self) -> None:
        """End the processes, also in the middle of another thread's call, which then fails."""
        self._watch.close()
        self._kept, self._spare = Kept(), []

    def _load(self, kept: Kept) -> None:
        with self._calls:
            before, self._kept = self._kept, kept
            for _ in self._watch.ask("load_weights", dict.fromkeys(range(self._watch.count), _request(kept))):
                pass
        self._spare.append(before)  # nobody reads it any more

    def _renew(self) -> tuple[str, tuple[Any, ...]] | None:
        """What a new engine is asked first: to take the newest weights, if there were any."""
        return ("load_weights", _request(self._kept)) if self._kept.index else None


def _request(kept: Kept) -> tuple[Any, ...]:
    return kept.places, kept.index, kept.version


def dealt(count: int, engines: int) -> list[range]:
    """Places 0 to `count` - 1 in as many runs: samples of one prompt lie together, and share what is cached of it."""
    return [range(count * k // engines, count * (k + 1) // engines) for k in range(engines)]


def evenly(lengths: Sequence[int], engines: int) -> list[list[int]]:
    """Which sequences each engine reads, so that none has much more than the others: the longest go first."""
    parts: list[list[int]] = [[] for _ in range(engines)]
    loads = [0] * engines
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        least = loads.index(min(loads))
        parts[least].append(place)
        loads[least] += lengths[place]
    return [sorted(part) for part in parts]
