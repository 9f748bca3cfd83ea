"""One task's prompts: rendered, without those that are too long, in an order that a seed gives."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from opd.data.controls import Controls, Written
from opd.hints import shown
from opd.text.chat import with_system
from opd.types import Example, Prompt, UserError

Render = Callable[[Sequence[Example]], list[list[int]]]
LOOK_THROUGH = 200_000
"""Longest split that is looked through at the start; longer ones are procedural, and meet their long prompts later."""
_CHUNK = 1000  # prompts rendered at once
_SAMPLE = 100  # items, at most, that tell a split from another one where it was not looked through
_ATTEMPTS = 1000  # draws from a long split before it is taken to have no prompt that fits


@dataclass(frozen=True)
class Source:
    """The items of one split of one task that fit, made by `open_source`."""

    name: str
    """Key of the task in `data.tasks`."""
    items: Sequence[Example]
    render: Render
    max_tokens: int
    system: str | None
    """System turn put before conversations that have none."""
    fits: Sequence[int] | None
    """Indices of the items that fit; None where they were not looked through."""
    digest: str = ""
    """Of those, in their order; empty where they were not looked through."""
    written: Written = field(default_factory=Written)
    """What is not read as it is written, in the rows that were looked at."""
    known: frozenset[int] = frozenset()
    """What those that fit ask, by `asked`; empty where they were not looked through."""

    @property
    def dropped(self) -> int:
        """How many items do not fit, of those that were looked at."""
        return 0 if self.fits is None else len(self.items) - len(self.fits)

    @property
    def mark(self) -> str:
        """What tells the items that fit, and their order, from others; where nobody looked, a sample of all of them."""
        if self.fits is not None:
            return self.digest
        size, seen = len(self.items), _Digest()
        seen.add(size)
        for place in range(0, size, -(-size // _SAMPLE) or 1):
            try:
                seen.add_item(self._named(place))
            except UserError:  # of a row that may never be asked for
                continue
        return seen.text

    def draw(self, position: int, seed: int, shuffle: bool) -> Prompt:
        """Give the prompt at a place in the endless row of epochs, each in its own order; depends on nothing else."""
        size = len(self.items if self.fits is None else self.fits)
        epoch, place = divmod(position, size)
        if shuffle:
            place = int(_order(seed, self.name, epoch, size)[place])
        return self._fitting(place, np.random.default_rng([seed, _number(self.name), position]))

    def other(self, prompt: Prompt, seed: int) -> Prompt:
        """Give one of all other prompts, each as likely, by the seed alone; the same one where there is no other."""
        rng = np.random.default_rng([seed, _number(self.name)])
        size = len(self.items if self.fits is None else self.fits)
        for _ in range(_ATTEMPTS if size > 1 else 0):
            drawn = self._fitting(int(rng.integers(size)), rng)
            if drawn.example.id != prompt.example.id:
                return drawn
        return prompt

    def _fitting(self, place: int, rng: np.random.Generator) -> Prompt:
        """The prompt at a place of those that fit; of a split that was not looked through, or one in its place."""
        if self.fits is not None:
            return self._prompts([self.fits[place]])[0]
        size = len(self.items)
        for _ in range(_ATTEMPTS):
            prompt = self._prompts([place])[0]
            if self._fit(prompt):
                return prompt
            place = int(rng.integers(size))  # a stand-in for one that is too long
        raise UserError(f"max_prompt_tokens: {self.max_tokens} is too few for the prompts of task {self.name}")

    def first(self, count: int) -> list[Prompt]:
        """Give up to `count` prompts that fit, chosen alike for every seed."""
        chosen: list[Prompt] = []
        if count < 1 or not len(self.items):
            return chosen
        order = _order(0, self.name, 0, len(self.items))
        for places in _chunks(order, min(count, _CHUNK)):
            chosen += [prompt for prompt in self._prompts(places) if self._fit(prompt)]
            if len(chosen) >= count:
                break
        return chosen[:count]

    def examples(self) -> Iterator[Example]:
        """Give the items that fit; of a split that was not looked through, the first ones."""
        return (self._named(i) for i in self._places())

    def prompts(self) -> Iterator[Prompt]:
        """Give the same items as prompts."""
        for some in _chunks(self._places(), _CHUNK):
            yield from filter(self._fit, self._prompts(some))

    def _places(self) -> Sequence[int]:
        return range(min(len(self.items), _CHUNK)) if self.fits is None else self.fits

    def _named(self, index: int) -> Example:
        """Put the task's name, and the system turn, into an item."""
        try:
            item = self.items[index]
        except UserError as error:
            raise UserError(f"data.tasks.{self.name}: {error}") from error
        check_item(item, f"data.tasks.{self.name}")
        messages = with_system(item.messages, self.system)
        return replace(item, id=f"{self.name}/{item.id}", task=self.name, messages=messages)

    def _prompts(self, indices: Sequence[int]) -> list[Prompt]:
        items = [self._named(i) for i in indices]
        try:
            rows = self.render(items)
        except UserError:  # they are rendered together, which is faster, so that none is named
            rows = [self._rendered(item) for item in items]
        return [Prompt(item, tuple(row)) for item, row in zip(items, rows, strict=True)]

    def _rendered(self, item: Example) -> list[int]:
        """Render one item; what is said against it names its row, or the setting that it fails by."""
        try:
            return self.render([item])[0]
        except UserError as error:
            culprit = f"data.tasks.{self.name}: {item.name}"
            if self._fails_by_system(item):
                culprit = "data.system: set it to null, or put its words into the prompts"
            raise UserError(f"{culprit}: {error}") from error

    def _fails_by_system(self, item: Example) -> bool:
        """Whether an item could be rendered if the setting did not put a system turn before it."""
        first, *others = item.messages
        if not self.system or first != {"role": "system", "content": self.system} or not others:
            return False
        try:
            self.render([replace(item, messages=tuple(others))])
        except UserError:
            return False
        return True

    def _fit(self, prompt: Prompt) -> bool:
        return 0 < len(prompt.tokens) <= self.max_tokens


def open_source(
    name: str, items: Sequence[Example], render: Render, max_tokens: int, system: str | None, controls: Controls
) -> Source:
    """Look through a split for the prompts that fit: at least one token, so that there is something to go on from."""
    source = Source(name, items, render, max_tokens, system, None)
    if len(items) > LOOK_THROUGH:
        return source
    fits, seen, known, ids = [], _Digest(), set[int](), set[str]()
    for places in _chunks(range(len(items)), _CHUNK):
        for place, prompt in zip(places, source._prompts(places), strict=True):
            if prompt.example.id in ids:
                raise UserError(
                    f"data.tasks.{name}: two of its items have the id {items[place].id!r}; each has its own"
                )
            ids.add(prompt.example.id)
            if source._fit(prompt):
                fits.append(place)
                known.add(asked(prompt.example))
                seen.add_item(prompt.example)
                source.written.look(controls, prompt)
    return replace(source, fits=fits, digest=seen.text, known=frozenset(known))


def asked(example: Example) -> int:
    """A hash of what an example asks, in this process."""
    return hash(tuple((turn["role"], turn["content"]) for turn in example.messages))


def check_items(items: Any, where: str) -> None:
    """UserError where what a task gives can be gone through once only, or is none at all."""
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise UserError(f"{where}: its examples are a {type(items).__name__}; allowed is a sequence, such as a list")


def check_item(item: Any, where: str) -> None:
    """UserError for what is no item of a task: one's own may give anything."""
    if not isinstance(item, Example):
        raise UserError(f"{where}: an item is a {type(item).__name__}; allowed is an opd.types.Example")
    turns = item.messages
    if isinstance(turns, str) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise UserError(
            f"{where}: messages of {item.name} are {shown(turns)}; allowed is a tuple of mappings of role and content"
        )
    for turn in turns:
        if not isinstance(turn.get("content"), str) or not isinstance(turn.get("role"), str):
            raise UserError(f"{where}: a turn of {item.name} is {shown(turn)}; its role and content have to be texts")


class _Digest:
    """A digest of items: of all that is asked, answered and verified with."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=6)

    def add_item(self, item: Example) -> None:
        """Go on with an item."""
        self.add((item.messages, item.tools, item.answer, item.completion, item.closing, item.meta))

    def add(self, value: Any) -> None:
        """Go on with a value."""
        self._hash.update(json.dumps(value, default=_plain, skipkeys=True).encode() + b"\n")

    @property
    def text(self) -> str:
        """Of all so far."""
        return self._hash.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON does not know: a mapping of another kind; of others the kind: their text may change."""
    return dict(value) if isinstance(value, Mapping) else type(value).__name__


@functools.lru_cache(maxsize=16)
def _order(seed: int, name: str, epoch: int, size: int) -> np.ndarray:
    """Shuffle an epoch; kept, since every step asks for the same ones again."""
    return np.random.default_rng([seed, _number(name), epoch]).permutation(size)


def _number(name: str) -> int:
    """Turn a task's name into a part of a seed, so that adding a task moves no other one's order."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _chunks(places: Sequence[int] | np.ndarray, size: int) -> Iterator[list[int]]:
    for i in range(0, len(places), size):
        yield [int(place) for place in places[i : i + size]]
