"""A task: prompts, and a verifier that scores what is answered."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from opd.types import Example, Split


@dataclass(frozen=True)
class Starter:
    """Sums of four numbers, `1+2+3+4:`. A task over the rows of a file derives from `opd.tasks.rows.Rows`."""

    largest: Annotated[int, Field(ge=1, le=20)] = 5
    """Of the numbers."""
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the items that is held out."""

    def examples(self, split: Split) -> Sequence[Example]:
        """The items of a split, in an order that is always the same; no item is in both."""
        items = list(itertools.product(range(self.largest + 1), repeat=4))
        random.Random(0).shuffle(items)
        held_out = max(1, round(len(items) * self.eval_fraction))
        return [_example(numbers) for numbers in (items[:held_out] if split == "eval" else items[held_out:])]

    def verify(self, example: Example, text: str) -> float:
        """Score a completion in [0, 1]: 1 where the sum stands at its end, behind the last equals sign."""
        return float(text.rpartition("=")[2].strip() == example.answer)


def _example(numbers: Sequence[int]) -> Example:
    """One item; its id is the same in every process."""
    name = "+".join(map(str, numbers))
    return Example(id=name, messages=({"role": "user", "content": f"{name}:"},), answer=str(sum(numbers)))
