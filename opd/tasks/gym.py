"""Any generator of the reasoning-gym library, with its own settings and its own scorer."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from opd.extras import install
from opd.tasks.evaluated import harmless
from opd.tasks.grader import grader
from opd.tasks.lazy import Lazy
from opd.types import Example, Split, UserError

_EVAL_SEED = 1 << 30  # the eval items are those of another seed; problems that are in both are left to eval


@dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """Procedural problems; the answer is looked for in `<answer>` tags, else the whole completion is taken."""

    name: str
    """The generator, such as `chain_sum` or `countdown`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """The generator's own settings, but for `seed` and `size`."""
    size: Annotated[int, Field(ge=1)] = 1_000_000
    """Length of the train split, made on access; a few generators make all of it at the start, and want less."""
    eval_size: Annotated[int, Field(ge=1)] = 200
    """Length of the eval split, of which repeated problems are left out."""
    seed: Annotated[int, Field(ge=0, lt=_EVAL_SEED)] = 0
    """Which examples are drawn."""
    suffix: Annotated[str, Field(min_length=0)] = "\n\nGive the final answer alone between <answer> and </answer>."
    """Text put after every problem."""

    def __post_init__(self) -> None:
        """Refuse settings of the generator that are set here."""
        for key in ("seed", "size"):
            if key in self.params:
                raise ValueError(f"params.{key}: set {key} of the task itself")

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; no problem is in both.

        Raises:
            UserError: reasoning-gym is missing, or knows no such generator or setting.
        """
        held_out = self._generator(self.seed + _EVAL_SEED, self.eval_size)
        first = {held_out[i]["question"]: i for i in reversed(range(self.eval_size))}
        if split == "eval":
            return _Problems(self.name, split, self.suffix, held_out, sorted(first.values()), frozenset())
        made = self._generator(self.seed, self.size)
        return _Problems(self.name, split, self.suffix, made, range(self.size), frozenset(first))

    def verify(self, example: Example, text: str) -> float:
        """Score a completion by the generator's own scorer, cut to [0, 1]; some give part of the mark.

        It is scored in a process of its own, for a few seconds at most; an answer to a generator that evaluates
        answers as code gets 0, unseen, where there is more in it than a right answer has.
        """
        from reasoning_gym.utils import extract_answer

        given, entry = extract_answer(text), dict(example.meta["entry"])
        answer = text.strip() if given is None else given.strip()
        if not harmless(self.name, entry, answer):
            return 0.0
        score = grader().score(scorer, (self.name, self._settings(), self.seed), answer, entry)
        return min(1.0, max(0.0, score))

    def _generator(self, seed: int, size: int) -> Any:
        return _generator(self.name, self._settings(), seed, size)

    def _settings(self) -> str:
        return json.dumps(dict(self.params), default=list)


class _Problems(Lazy[Example]):
    """Chosen items of a generator, made on access; train items that are eval's give way to the next that is not."""

    def __init__(
        self, name: str, split: Split, suffix: str, made: Any, keep: Sequence[int], taken: frozenset[str]
    ) -> None:
        self.name, self.split, self.suffix, self.made, self.keep, self.taken = name, split, suffix, made, keep, taken

    def __len__(self) -> int:
        return len(self.keep)

    def item(self, index: int) -> Example:
        """Make the problem at a place, or the next one that eval does not have."""
        for step in range(len(self)):
            entry = self.made[self.keep[(index + step) % len(self)]]
            if entry["question"] not in self.taken:
                message = {"role": "user", "content": entry["question"] + self.suffix}
                answer = "" if entry["answer"] is None else str(entry["answer"])
                return Example(f"{self.split}-{index}", (message,), answer, meta={"entry": entry})
        raise UserError(f"params: generator {self.name!r} makes no problem that is not in eval; widen them")


def scorer(name: str, params: str, seed: int) -> Callable[[str, Mapping[str, Any]], float]:
    """Give a generator's own scorer, which takes an answer and the problem; for the grader's process."""
    score: Callable[[str, Mapping[str, Any]], float] = _generator(name, params, seed, 1).score_answer
    return score


@functools.lru_cache(maxsize=64)
def _generator(name: str, params: str, seed: int, size: int) -> Any:
    """Make a generator; some read word lists at this, so they are kept. `params` is JSON."""
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ModuleNotFoundError as error:
        raise UserError(f"this task needs reasoning-gym, which is not installed:  {install('tasks')}") from error

    if name not in DATASETS:
        match = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.5)
        near = f", did you mean {match[0]}?" if match else ""
        raise UserError(f"name: no generator {name!r} in reasoning-gym{near}; there are {', '.join(sorted(DATASETS))}")
    try:
        return create_dataset(name, seed=seed, size=size, **json.loads(params))
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(f"params: {params} with size {size} does not suit generator {name!r}: {error}") from error
