"""An engine that leaves the GPU to teacher and learner: it wakes when it is asked, and sleeps when it is told.

Two depths of sleep, which vLLM calls levels 2 and 1. In a step the weights are thrown away: the push that follows the
update brings all of them anyway (adapters merged), so that nothing has to be copied out and the host keeps nothing.
Elsewhere (evaluation, preflight, at the start, `opd eval`) nobody pushes before the next question: the host keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

from opd.stream import stream
from opd.types import Prompt, Rollout, Sampling, TokenPair, Weights
from opd.writing import Sampler

Part = Literal["weights", "kv_cache"]
"""What of an engine takes memory, in the order that it wakes in."""


@runtime_checkable
class Sleeping(Sampler, Protocol):
    """A started engine that can give back its memory; between `sleep` and `wake` of both parts it is asked nothing."""

    def sleep(self, keep: bool) -> None:
        """Give back the memory of the caches and of the weights; these go to the host, or without `keep` are lost."""
        ...

    def wake(self, part: Part) -> None:
        """Take the memory of a part again: weights as they were, where they were kept, caches empty."""
        ...


@runtime_checkable
class Resting(Protocol):
    """An engine that can be told that others need the memory."""

    def rest(self, keep: bool) -> None:
        """Sleep until the next question; without `keep` that has to be a push."""
        ...


def rest(engine: object, *, keep: bool) -> None:
    """Have an engine sleep that can; all others stay as they are.

    Args:
        engine: A sampler, or who writes in its place.
        keep: Whether it may be asked before it is handed new weights.
    """
    if isinstance(engine, Resting):
        engine.rest(keep)


class Sleeper:
    """An engine that sleeps from its start on."""

    def __init__(self, engine: Sleeping) -> None:
        self._engine = engine
        self._asleep: list[Part] = []
        self._lost = False
        self.rest(keep=True)

    def rest(self, keep: bool) -> None:
        """Sleep until the next question; see `Resting`."""
        if not self._asleep:
            self._engine.sleep(keep)
            self._asleep, self._lost = ["weights", "kv_cache"], not keep

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Wake, and draw; see `opd.writing.Sampler`."""
        self._wake()
        return self._engine.sample(prompts, sampling)

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Rollout]]:
        """Wake, and draw; see `opd.stream.Streaming`."""
        self._wake()
        return stream(self._engine, prompts, sampling)

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        """Wake, and score; see `opd.writing.Sampler`."""
        self._wake()
        return self._engine.logprobs(sequences)

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights; the caches wake afterwards, when what the push itself took is free again."""
        self._rouse("weights")
        self._engine.load_weights(weights, version)
        self._lost = False
        self._rouse("kv_cache")

    def close(self) -> None:
        """Free everything, asleep or not."""
        self._engine.close()

    def _wake(self) -> None:
        assert not self._lost, "asked after a sleep that threw the weights away, and before a push"
        self._rouse("weights")
        self._rouse("kv_cache")

    def _rouse(self, part: Part) -> None:
        if part in self._asleep:
            self._engine.wake(part)
            self._asleep.remove(part)
