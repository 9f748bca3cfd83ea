"""Completions one by one, as they are finished: the short ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from opd.types import Prompt, Rollout, Sampling
from opd.writing import Sampler

T = TypeVar("T")


@runtime_checkable
class Streaming(Sampler, Protocol):
    """An engine that gives what it has finished while it writes the rest."""

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Rollout]]:
        """Draw what `sample` draws, and give each completion with its place there."""
        ...


def stream(engine: Sampler, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Rollout]]:
    """The completions of an engine with their places, as they are finished; in the end, where it cannot tell."""
    if isinstance(engine, Streaming):
        return engine.stream(prompts, sampling)
    return enumerate(engine.sample(prompts, sampling))


@runtime_checkable
class Telling(Sampler, Protocol):
    """An engine that is part of several: it tells of what it has finished itself."""

    def telling(
        self, prompts: Sequence[Prompt], sampling: Sampling, finished: Callable[[Rollout], None]
    ) -> list[Rollout]:
        """Draw what `sample` draws, and tell of each completion that is drawn here."""
        ...


def telling(
    engine: Sampler, prompts: Sequence[Prompt], sampling: Sampling, finished: Callable[[Rollout], None]
) -> list[Rollout]:
    """The completions of an engine, which are told of one by one, as they are finished, each where it was drawn."""
    if isinstance(engine, Telling):
        return engine.telling(prompts, sampling, finished)
    done: dict[int, Rollout] = {}
    for place, rollout in stream(engine, prompts, sampling):
        finished(rollout)
        done[place] = rollout
    return in_order(done.items())


def in_order(placed: Iterable[tuple[int, T]]) -> list[T]:
    """All of them, in the order of their places, when the last one is there."""
    done = dict(placed)
    return [done[place] for place in range(len(done))]
