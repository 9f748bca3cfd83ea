"""Special tokens in what people write: where a text says `<|im_end|>`, a tokenizer reads the end of a turn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opd.types import Example


class Controls:
    """The special tokens that a tokenizer reads in a text, too; some are set to split them there."""

    def __init__(self, tokenizer: Any) -> None:
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        words = sorted({w for w in special | set(tokenizer.all_special_tokens) if w.strip()}, key=len, reverse=True)
        ids = tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        read = [w for w, row in zip(words, ids, strict=True) if tokenizer.convert_tokens_to_ids(w) in row]
        self._any = re.compile("|".join(map(re.escape, read)) or r"(?!)")

    def first(self, example: Example) -> str:
        """The first of them that a row writes itself, in its turns or in what it answers; empty: none."""
        turns = (*example.messages, {"content": example.completion, **example.closing})
        return next((match[0] for text in _texts(turns) if (match := self._any.search(text))), "")


def _texts(turns: Any) -> Iterator[str]:
    for turn in turns:
        yield turn["content"]
        yield turn.get("reasoning_content", "")


@dataclass
class Written:
    """How many rows write special tokens, and which is the first of them."""

    rows: int = 0
    count: int = 0
    row: str = ""
    token: str = ""

    def look(self, controls: Controls, example: Example) -> None:
        """Look at one more row."""
        self.rows += 1
        if token := controls.first(example):
            self.count += 1
            if self.count == 1:
                self.row, self.token = example.name, token

    def said(self, where: str, chat: bool) -> Iterator[str]:
        """What is to be said of it, if anything; `chat`: whether a template writes the turns out."""
        if self.count:
            meant = ", as in prompts that are written out for a chat already (data.template=plain)" if chat else ""
            yield (
                f"{where}: {self.count} of {self.rows} rows write special tokens, which the student's tokenizer reads "
                f"as such and not as text (the first: {self.token!r} in {self.row}); take them out, unless they are "
                f"meant{meant}"
            )
