"""Blocks for thoughts, `<think>` and its like, that a prompt ends in or an answer begins with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from opd.types import Message

_OPENED = re.compile(r"<([A-Za-z][\w:]*)>\s*$")
_NAMED = re.compile(r"think|thought|reason", re.IGNORECASE)
"""There are other tags at the ends of prompts: `<bot>`, `<eos>`."""
_CLOSED = re.compile(r"</([A-Za-z][\w:]*)>\s*$")


@dataclass(frozen=True)
class Block:
    """A kind of block, and where in a text one begins."""

    name: str
    start: int = 0

    @classmethod
    def opened(cls, text: str, template: str = "") -> Block | None:
        """The block that a text ends in; its name says that it is for thoughts, or the template closes it."""
        found = _OPENED.search(text)
        known = found and (_NAMED.search(found[1]) or f"</{found[1]}>" in template)
        return cls(found[1], found.start()) if found and known else None

    @classmethod
    def closed(cls, text: str) -> Block | None:
        """The block for thoughts that a text ends with the end of."""
        found = _CLOSED.search(text)
        return cls(found[1], found.start()) if found and _NAMED.search(found[1]) else None

    @property
    def opens(self) -> str:
        """Its first tag."""
        return f"<{self.name}>"

    @property
    def closes(self) -> str:
        """Its last tag."""
        return f"</{self.name}>"

    def goes_on(self, said: str, turn: Message) -> bool:
        """Whether a rendered answer goes on in the opened block and closes it once, with the thoughts that it has."""
        thoughts, _ = parted(turn, self)
        inner = (thoughts or "").partition(self.closes)[0]
        kept = "".join(inner.split()) in "".join(said.split())
        return self.closes in said and self.opens not in said and kept

    def closing(self, lead: str) -> str:
        """What closes the block, after `lead`, which is written between the role and the words of an answer."""
        at = lead.rfind(self.closes)
        return f"\n{self.closes}\n\n" if at < 0 else lead[len(lead[:at].rstrip()) :]

    def outside(self, text: str) -> str:
        """A rendered answer without thoughts, without the empty or open block that it begins with."""
        return re.sub(rf"^\s*({self.opens})?\s*({self.closes})?\s*", "", text)


def parted(turn: Message, block: Block) -> tuple[str | None, str]:
    """Part an answer's turn into thoughts and words.

    Returns:
        The thoughts, as the text has them up to the end of their block and what is white after it, or as a field of
        their own has them; None where there are none. And the words.
    """
    content: str = turn["content"]
    if "reasoning_content" in turn:
        return str(turn["reasoning_content"]).strip(), content
    if content.lstrip().startswith(block.opens):
        content = content.lstrip().removeprefix(block.opens).lstrip("\n")
        if block.closes not in content:
            return content, ""
    if block.closes not in content:
        return None, content
    end = re.compile(rf".*?{block.closes}\s*", re.DOTALL).match(content)
    assert end is not None, "the text has the tag"
    return content[: end.end()], content[end.end() :]
