"""The items of a procedural task, drawn from its seed on access."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from opd.tasks.lazy import Lazy
from opd.types import Example, Split

_EVAL_SHARE = 8  # one problem in so many, by the hash of its text, is kept for evaluation


class Procedural(Protocol):
    """A task that draws its problems."""

    @property
    def size(self) -> int:
        """Length of the train split."""
        ...

    @property
    def eval_size(self) -> int:
        """Length of the eval split."""
        ...

    @property
    def seed(self) -> int:
        """What all draws derive from."""
        ...

    def draw(self, rng: np.random.Generator) -> tuple[str, str]:
        """Draw one problem: its text, and its answer."""
        ...

    def example(self, name: str, text: str, answer: str) -> Example:
        """Make an item of a problem."""
        ...


@dataclass(frozen=True)
class Drawn(Lazy[Example]):
    """The items of one split: item `i` depends on the task's settings and on `i` alone."""

    task: Procedural
    split: Split

    def __len__(self) -> int:
        return self.task.size if self.split == "train" else self.task.eval_size

    def item(self, index: int) -> Example:
        """Draw until the problem belongs to the split."""
        rng = np.random.default_rng([self.task.seed, self.split == "eval", index])
        while True:
            text, answer = self.task.draw(rng)
            if _split_of(text) == self.split:
                return self.task.example(f"{self.split}-{index}", text, answer)


@dataclass(frozen=True, kw_only=True)
class Numbers(Procedural):
    """Settings of tasks that draw a few numbers for each problem."""

    min_numbers: int
    """Fewest numbers in a problem."""
    max_numbers: int
    """Most numbers in a problem."""
    size: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    """Length of the train split; items are made on access, drawn with replacement."""
    eval_size: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Length of the eval split."""
    seed: int = 0
    """Which examples are drawn."""

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if self.max_numbers < self.min_numbers:
            raise ValueError(f"max_numbers={self.max_numbers}: allowed is at least min_numbers={self.min_numbers}")

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; no problem is in both, by the hash of its text."""
        return Drawn(self, split)


def _split_of(text: str) -> Split:
    """Say which split a problem belongs to, whatever the settings that it was drawn with."""
    return "train" if hashlib.sha256(text.encode()).digest()[0] % _EVAL_SHARE else "eval"
