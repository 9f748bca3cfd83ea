"""Whether a template writes all of a conversation: each part of it gets a mark of its own, which is looked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from opd.text.calls import name_of
from opd.types import Message

_FIRST = 0xF0000
"""Marks are characters for private use, which neither texts nor templates have."""
_THOUGHTS = ("reasoning_content", "thinking")
_BLOCK = re.compile(r"</?\w*(think|thought|reason)\w*>", re.IGNORECASE)


class Marks:
    """Marks behind the parts of turns and tools, and what each stands for."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def missing(self, text: str) -> str | None:
        """The first part whose mark is not in a text, as it is or as JSON escapes it; None where all are there."""
        gone = (part for mark, part in self._parts.items() if not (mark in text or json.dumps(mark)[1:-1] in text))
        return next(gone, None)

    def turns(self, turns: Sequence[Message]) -> list[dict[str, Any]]:
        """Turns of a prompt, with marks. Thoughts of earlier turns are the template's to write or to leave out."""
        return [self._turn(turn) for turn in turns]

    def answer(self, turn: Message) -> dict[str, Any]:
        """An answer's turn, with marks: also behind its thoughts."""
        out = self._turn(turn)
        if turn.get("reasoning_content", "").strip():
            out["reasoning_content"] = turn["reasoning_content"] + self._mark("its reasoning_content")
        return out

    def tools(self, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Tools, with marks in name, description and parameters."""
        return [self._tool(tool) for tool in tools]

    def _mark(self, part: str) -> str:
        mark = chr(_FIRST + len(self._parts))
        self._parts[mark] = part
        return mark

    def _turn(self, turn: Message) -> dict[str, Any]:
        out, content, role = dict(turn), turn["content"], turn["role"]
        if content.strip():
            said = f"a turn of role {role!r}: {content[:40]!r}"
            # what an answer begins with may be thoughts, and those of earlier turns the template's to leave out
            begins = "" if role == "assistant" else self._mark(said)
            out["content"] = begins + content + self._mark(said)
        if "tool_calls" in turn:
            out["tool_calls"] = [self._call(call) for call in turn["tool_calls"]]
        return out

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        name, inner = name_of(call), dict(call.get("function", call))
        inner["name"] = name + self._mark(f"the call of the tool {name!r}")
        arguments = inner.get("arguments")
        if arguments and isinstance(arguments, Mapping | str):
            mark = self._mark(f"the arguments of a call of the tool {name!r}")
            inner["arguments"] = arguments + mark if isinstance(arguments, str) else {**arguments, mark: mark}
        return _within(call, inner)

    def _tool(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        name, inner = name_of(tool), dict(tool.get("function", tool))
        inner["name"] = name + self._mark(f"the tool {name!r}")
        if isinstance(inner.get("description"), str) and inner["description"].strip():
            inner["description"] += self._mark(f"what the tool {name!r} is described with")
        parameters = inner.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        if isinstance(parameters, Mapping) and properties and isinstance(properties, Mapping):
            mark = self._mark(f"the parameters of the tool {name!r}")
            inner["parameters"] = {**parameters, "properties": {**properties, mark: {"type": "string"}}}
        return _within(tool, inner)


def unread_field(turn: Message, template: str) -> str | None:
    """The first field of a turn that a template does not read, by its name; None where it reads all.

    A tool's reply may go without its tool's name and the call's id: it follows the call.
    """
    known = {"role", "content", "tool_calls"} | ({"name", "tool_call_id"} if turn["role"] == "tool" else set())
    given = [name for name, value in turn.items() if name not in known and value not in ("", [], {}, ())]
    return next((name for name in given if not any(named(n, template) for n in _names(name))), None)


def thinks_twice(turn: Message) -> bool:
    """Whether a turn has thoughts in a field of their own, and a block for thoughts in its text."""
    return bool(turn.get("reasoning_content", "").strip() and _BLOCK.search(turn["content"]))


def named(name: str, template: str) -> bool:
    """Whether a template has a name in it."""
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def _names(name: str) -> Sequence[str]:
    return _THOUGHTS if name in _THOUGHTS else (name,)


def _within(outer: Mapping[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    """A tool or a call around what it says of a function."""
    return {**outer, "function": inner} if "function" in outer else inner
