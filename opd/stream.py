"""Completions one by one, as they are finished: the short ones first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


def in_order(placed: Iterable[tuple[int, T]]) -> list[T]:
    """All of them, in the order of their places, when the last one is there."""
    done = dict(placed)
    return [done[place] for place in range(len(done))]
