"""What is read otherwise than it is written: `<|im_end|>` in a text ends a turn, and some characters are unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from opd.data.given import Characters, Tally
from opd.text.vocabulary import unknown_ids
from opd.types import Example, Prompt


class Controls:
    """The special tokens that a tokenizer reads in a text, too, where some are set to split them; and what it lacks."""

    def __init__(self, tokenizer: Any) -> None:
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        words = sorted({w for w in special | set(tokenizer.all_special_tokens) if w.strip()}, key=len, reverse=True)
        ids = tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        read = [w for w, row in zip(words, ids, strict=True) if tokenizer.convert_tokens_to_ids(w) in row]
        self._any = re.compile("|".join(map(re.escape, read)) or r"(?!)")
        self._unknown, self._characters = unknown_ids(tokenizer), Characters(tokenizer)

    def first(self, example: Example) -> str:
        """The first of them that a row writes itself, in its turns or in what it answers; empty: none."""
        turns = (*example.messages, {"content": example.completion, **example.closing})
        return next((match[0] for text in _texts(turns) if (match := self._any.search(text))), "")

    def unknown(self, prompt: Prompt) -> str:
        """Some of the characters of a prompt that the tokenizer does not know; empty: none."""
        if self._unknown.isdisjoint(prompt.tokens):
            return ""
        return "".join(self._characters.unknown("".join(_texts(prompt.example.messages)))[:5])


def _texts(turns: Any) -> Iterator[str]:
    for turn in turns:
        yield turn["content"]
        yield turn.get("reasoning_content", "")


@dataclass
class Written:
    """In how many rows there is such a thing, and which is the first of them."""

    rows: int = 0
    special: Tally = field(default_factory=Tally)
    unknown: Tally = field(default_factory=Tally)
    token: str = ""
    characters: str = ""

    def look(self, controls: Controls, prompt: Prompt) -> None:
        """Look at one more row."""
        self.rows += 1
        if token := controls.first(prompt.example):
            self.special.add(prompt.example)
            self.token = self.token or token
        if characters := controls.unknown(prompt):
            self.unknown.add(prompt.example)
            self.characters = self.characters or characters

    def said(self, where: str, chat: bool) -> Iterator[str]:
        """What is to be said of it, if anything; `chat`: whether a template writes the turns out."""
        if self.special.count:
            meant = ", as in prompts that are written out for a chat already (data.template=plain)" if chat else ""
            yield (
                f"{where}: {self.special.count} of {self.rows} rows write special tokens, which the student's "
                f"tokenizer reads as such and not as text (the first: {self.token!r} in {self.special.first}); take "
                f"them out, unless they are meant{meant}"
            )
        if self.unknown.count:
            yield (
                f"{where}: {self.unknown.count} of {self.rows} prompts have characters that the student's tokenizer "
                f"does not know, such as {self.characters!r}, and reads as one and the same (the first: "
                f"{self.unknown.first}); take a student that can read them, or take them out"
            )
