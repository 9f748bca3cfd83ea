"""Completions that the data gives, looked through before the first step: what is lost of them is counted and told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from opd.models.facts import check_ids
from opd.text.vocabulary import unknown_ids
from opd.types import Example, Rollout, Sampling, UserError


@dataclass
class Tally:
    """Completions that something is wrong with."""

    count: int = 0
    first: str = ""
    """What the first one is known by."""

    def add(self, example: Example) -> None:
        """Count one more."""
        self.count += 1
        self.first = self.first or example.name


@dataclass
class Characters:
    """Which characters a tokenizer does not know, by those that it was asked for."""

    tokenizer: Any
    known: dict[str, bool] = field(default_factory=dict)

    def unknown(self, text: str) -> list[str]:
        """Those of a text that become an unknown token, or nothing at all; white space, which may be joined, aside."""
        return [c for c in dict.fromkeys(text) if not (self._knows(c) or c.isspace())]

    def _knows(self, character: str) -> bool:
        if character not in self.known:
            ids = self.tokenizer(character, add_special_tokens=False)["input_ids"]
            self.known[character] = bool(ids) and not unknown_ids(self.tokenizer) & set(ids)
        return self.known[character]


def look_through(completions: Iterable[Rollout], tokenizer: Any, sampling: Sampling, vocabulary: int) -> list[str]:
    """Read all completions, and return a warning for each kind of loss.

    Args:
        completions: As the data gives them, not cut.
        tokenizer: The student's.
        sampling: Where they are cut, and what ends them.
        vocabulary: Columns of the student's output head.

    Raises:
        UserError: a completion has an id that the student does not have.
    """
    size, longest, cut, lost, characters = 0, 0, Tally(), Tally(), Characters(tokenizer)
    strange, unknown = "", unknown_ids(tokenizer) - set(sampling.stop)
    for rollout in completions:
        example = rollout.prompt.example
        _check(rollout, vocabulary)
        size, longest = size + 1, max(longest, len(rollout.tokens))
        if len(rollout.tokens) > sampling.max_tokens:
            cut.add(example)
        odd = characters.unknown(example.completion + str(example.closing.get("reasoning_content", "")))
        if odd or unknown & set(rollout.tokens):
            lost.add(example)
            strange = strange or "".join(odd[:5])
    said = []
    if cut.count:
        said.append(
            f"{cut.count} of {size} given completions are cut at sampling.max_tokens={sampling.max_tokens}, and their "
            f"ends are not trained on (the first: {cut.first}); raise it, to {longest} for all, or leave them out"
        )
    if lost.count:
        such = f", such as {strange!r}" if strange else ""
        said.append(
            f"{lost.count} of {size} given completions have characters that the student's tokenizer does not know"
            f"{such} (the first: {lost.first}); take them out, or train a student that can write them"
        )
    return said


def _check(rollout: Rollout, vocabulary: int) -> None:
    """Refuse ids that the student does not have, by row."""
    example = rollout.prompt.example
    try:
        check_ids("the student", max(rollout.tokens, default=0), vocabulary)
    except UserError as error:
        raise UserError(f"data.tasks.{example.task}: {example.name}: {error}") from error
