"""Whether a template writes all of a conversation: each part of it gets a mark of its own, which is looked for."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from opd.text.calls import name_of
from opd.types import Message, UserError

_FIRST = 0xF0000
"""Marks are characters for private use, which neither texts nor templates have."""
_THOUGHTS = ("reasoning_content", "thinking")
_ENOUGH = 16
"""Characters of a turn that nothing but the turn itself has."""
_BLOCK = re.compile(r"</?\w*(think|thought|reason)\w*>", re.IGNORECASE)


class Marks:
    """Marks behind the parts of turns and tools, and what each stands for."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def missing(self, text: str) -> str | None:
        """The first part whose mark is not in a text, as it is or as JSON escapes it; None where all are there."""
        gone = (part for mark, part in self._parts.items() if not (mark in text or json.dumps(mark)[1:-1] in text))
        return next(gone, None)

    def check(self, text: str, template: str) -> None:
        """Raise UserError where a mark is not in what a template, by its name, has written."""
        if part := self.missing(text):
            raise UserError(
                f"{template} leaves out {part}; rename the role, write it into a turn's text, take it out, or use "
                "another template"
            )

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


def surely_in(turns: Sequence[Message], text: str) -> bool:
    """Whether a text has all of a single turn, which nothing else can stand in for: most prompts need no marks."""
    return len(turns) == 1 and len(said := turns[0]["content"].strip()) >= _ENOUGH and said in text


def check_settings(settings: Mapping[str, Any], source: str, template: str) -> None:
    """Raise UserError for one that a template's source does not name."""
    for name in settings:
        if not _names(name, source):
            near = difflib.get_close_matches(name, set(re.findall(r"[A-Za-z_]\w+", source)), 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"template_kwargs: {template} does not read {name!r}; {hint}take it out, or give a model whose "
                "template differs template_kwargs of its own"
            )


def check_read(turns: Sequence[Message], source: str, template: str, written: Collection[str] = ()) -> None:
    """Raise UserError for fields of turns that a template's source does not name, and for thoughts in two places.

    A tool's reply may go without its tool's name and the call's id: it follows the call. Nor are the fields looked at
    that are `written` in another way.
    """
    for turn in turns:
        for name in _further(turn):
            if name not in written and not any(
                _names(n, source) for n in (_THOUGHTS if name in _THOUGHTS else (name,))
            ):
                raise UserError(
                    f"{template} does not read {name!r}, which a turn of role {turn['role']!r} has "
                    f"({repr(turn[name])[:40]}); take it out of the rows, or use another template"
                )
        if turn.get("reasoning_content", "").strip() and _BLOCK.search(turn["content"]):
            raise UserError(
                f"an answer has thoughts in its text ({turn['content'][:40]!r}) and in reasoning_content; keep one of "
                "them"
            )


def check_plain(turns: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError for what a text without a template cannot say."""
    if tools or any("tool_calls" in turn for turn in turns):
        raise UserError("the prompt has tools, which plain text cannot say; use template=chat")
    for name in (name for turn in turns for name in _further(turn)):
        raise UserError(f"a turn has {name!r}, which plain text cannot say; use template=chat, or take it out")


def _further(turn: Message) -> list[str]:
    """Names of the fields of a turn that say something, but for those of every turn."""
    usual = {"role", "content", "tool_calls"} | ({"name", "tool_call_id"} if turn["role"] == "tool" else set())
    return [name for name, value in turn.items() if name not in usual and value not in ("", [], {}, ())]


def _names(name: str, source: str) -> bool:
    """Whether a template's source has a name in it."""
    return re.search(rf"\b{re.escape(name)}\b", source) is not None


def _within(outer: Mapping[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    """A tool or a call around what it says of a function."""
    return {**outer, "function": inner} if "function" in outer else inner
