"""An engine in this process that is started again where it fails in the middle of its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from opd.devices.shortage import shortage
from opd.rollout.guard import randomness_kept
from opd.rollout.sleep import rest
from opd.stream import in_order, stream
from opd.types import Pretrained, Prompt, Rollout, RunError, Sampling, TokenPair, UserError, Weights
from opd.writing import Engine, Sampler

T = TypeVar("T")


@dataclass(frozen=True)
class Reviving:
    """Settings of such an engine; itself those of an engine."""

    engine: Engine
    """Of the engine itself."""
    times: int
    """That it is started again for one request."""
    told: Callable[[str], None]
    """Is told of it."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Revived:
        """Start it for the first time; see `opd.writing.Engine`."""
        begin = partial(self.engine.start, model, max_len=max_len, seed=seed)
        first = begin()
        kind = RevivedMixing if hasattr(first, "sample_mixed") else Revived
        return kind(first, begin, self.times, self.told)


class Revived:
    """A started engine, or the one that has taken its place.

    What was asked for has its own seed for every completion: the new engine is asked for those that are missing, with
    the newest weights, and writes what the old one would have written.
    """

    def __init__(self, engine: Any, begin: Callable[[], Sampler], times: int, told: Callable[[str], None]) -> None:
        self.engine = engine
        """The one that works now."""
        self._begin, self._times, self._told = begin, times, told
        self._newest: tuple[Weights, int] | None = None

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `sampling.n` completions per prompt; see `opd.writing.Sampler`."""
        return in_order(self.stream(prompts, sampling))

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Rollout]]:
        """Draw the same, each as soon as it is finished; see `opd.stream.Streaming`."""
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        places = sampling.places or range(len(owners))
        missing = dict.fromkeys(range(len(owners)))

        def asked() -> Iterator[tuple[int, Rollout]]:
            left = list(missing)
            whole = len(left) == len(owners)
            drawn = sampling if whole else replace(sampling, n=1, places=tuple(places[i] for i in left))
            for i, rollout in stream(self.engine, prompts if whole else [owners[i] for i in left], drawn):
                del missing[left[i]]
                yield left[i], rollout

        yield from self._held(asked)

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        """Score given completions; see `opd.writing.Sampler`."""
        return list(self._held(lambda: iter(self.engine.logprobs(sequences))))

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights; see `opd.writing.Sampler`. They are taken again for an engine that is new."""
        self._newest, before = (weights, version), self.engine

        def pushed() -> Iterator[None]:
            if self.engine is before:  # else it has begun with them
                self.engine.load_weights(weights, version)
            return iter(())

        list(self._held(pushed))

    def rest(self, keep: bool) -> None:
        """Have it sleep, where it can."""
        rest(self.engine, keep=keep)

    def close(self) -> None:
        """Free everything."""
        self.engine.close()

    def _held(self, ask: Callable[[], Iterator[T]]) -> Iterator[T]:
        """What comes when the engine is asked, by this one or by one that takes its place."""
        for left in reversed(range(self._times + 1)):
            try:
                yield from ask()
            except UserError:  # it is what was asked for
                raise
            except Exception as error:  # an engine may fail in any way
                if shortage(error):  # another one would want as much
                    raise
                if not left or (self._newest and isinstance(self._newest[0], Iterator)):
                    raise _told(error) from error
                self._renew(error)
            else:
                return

    def _renew(self, error: Exception) -> None:
        """Start another engine, and bring it to where this one was; nothing else in the process notices."""
        self._told(f"{_told(error)}; the engine is started again, and asked for what is missing")
        with suppress(Exception):  # it is broken in a way that nobody knows
            self.engine.close()
        try:
            with randomness_kept():
                self.engine = self._begin()
            if self._newest:
                self.engine.load_weights(*self._newest)
        except Exception as second:  # likewise
            raise RunError(f"{_told(error)}; the one that was to take its place fails, too: {_told(second)}") from error


class RevivedMixing(Revived):
    """One that can draw together with another one's model."""

    def sample_mixed(
        self,
        other: Revived,
        other_prompts: Sequence[Sequence[int]],
        alpha: float,
        prompts: Sequence[Prompt],
        sampling: Sampling,
    ) -> list[Rollout]:
        """Draw as `sample` does, each token from `alpha` of the other one's model and the rest of this one's."""
        return list(
            self._held(
                lambda: iter(self.engine.sample_mixed(other.engine, other_prompts, alpha, prompts, sampling))
            )
        )  # fmt: skip


def _told(error: Exception) -> RunError:
    """An engine's error, as people are told."""
    if isinstance(error, RunError):
        return error
    said = (str(error).strip() or "no reason given").splitlines()[0]
    return RunError(f"rollout: the engine fails, {type(error).__name__}: {said}")
