"""Chat turns as rows hold them, read whole: every field is handed on, or the turn is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from opd.types import Message, UserError

Messages = tuple[Message, ...]
ROLES = {
    "system": ("system",),
    "developer": ("developer",),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "ai"),
    "tool": ("tool", "function", "observation", "ipython", "environment"),
}
"""Roles, and how data sets call them, in any letter case."""
_ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
_THOUGHTS = {"reasoning": "reasoning_content", "thinking": "reasoning_content"}
"""Other names of what a model thinks before it answers."""
_TEXTS = {"name", "reasoning_content", "tool_call_id"}
_SIDES = (("role", "from"), ("content", "value"))
"""A turn's two keys, of OpenAI and of ShareGPT."""


def messages_of(cell: Any, where: str) -> Messages:
    """Read a prompt cell: a text is one user turn; messages lose their closing assistant turns.

    Raises:
        UserError: the cell is neither, a turn cannot be read, or nothing is left; `where` names it.
    """
    if isinstance(cell, str):
        return ({"role": "user", "content": cell},)
    turns = turns_of(cell, where)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    if not turns:
        raise UserError(f"{where}: these messages have no turn to answer: {repr(cell)[:60]}")
    return tuple(turns)


def closing_turns(cell: Any, where: str = "") -> dict[str, Any]:
    """The assistant's turn that a prompt cell's messages end with; empty where they do not, or for a text.

    Several are taken together as paragraphs, unless one holds more than a text.
    """
    if isinstance(cell, str):
        return {}
    closing: list[dict[str, Any]] = []
    for turn in reversed(turns_of(cell, where)):
        if turn["role"] != "assistant":
            break
        closing.insert(0, turn)
    if len(closing) < 2:
        return closing[0] if closing else {}
    for turn in closing:
        if further := turn.keys() - {"role", "content"}:
            raise UserError(f"{where}: several assistant turns close these messages, and one has {min(further)}")
    return {"role": "assistant", "content": "\n\n".join(turn["content"] for turn in closing)}


def turns_of(cell: Any, where: str) -> list[dict[str, Any]]:
    """Read chat messages of `role` and `content` (OpenAI) or of `from` and `value` (ShareGPT), all fields of each.

    Fields that are null are left out: tables fill rows up with them.
    """
    if not isinstance(cell, list | tuple) or not all(isinstance(turn, Mapping) for turn in cell):
        raise UserError(f"{where}: a prompt is a text or a list of role and content, not {repr(cell)[:60]}")
    return [_turn(turn, f"{where}, turn {i}") for i, turn in enumerate(cell, start=1)]


def tools_of(cell: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """Read a row's tools: a list of their descriptions, or that in JSON; empty where there are none."""
    if isinstance(cell, str) and cell.strip():
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise UserError(f"{where}: its tools are a text that is not JSON ({error})") from error
    if not cell:
        return ()
    if not isinstance(cell, list | tuple):
        raise UserError(f"{where}: its tools must be a list of descriptions, not {repr(cell)[:60]}")
    for tool in cell:
        _named(tool, where, "one of its tools")
    return tuple(_without_nulls(tool) for tool in cell)


def _turn(turn: Mapping[str, Any], where: str) -> dict[str, Any]:
    (role, content), given = ([_one(turn, names, where) for names in _SIDES], _without_nulls(turn))
    if not isinstance(role, str) or role.strip().lower() not in _ROLE_OF:
        known = ", ".join(sorted(_ROLE_OF))
        raise UserError(f"{where}: {role!r} is no role that is known; known are {known}")
    further = {_THOUGHTS.get(k, k): v for k, v in given.items() if not any(k in names for names in _SIDES)}
    if further.get("reasoning_content") == "":
        del further["reasoning_content"]
    for name in _TEXTS & further.keys():
        if not isinstance(further[name], str):
            raise UserError(f"{where}: its {name} is {repr(further[name])[:40]}, allowed is a text")
    if "tool_calls" in further:
        calls = further.pop("tool_calls")
        if not isinstance(calls, list | tuple):
            raise UserError(f"{where}: its tool_calls are {repr(calls)[:40]}, allowed is a list")
        further |= {"tool_calls": [_call(call, where) for call in calls]} if calls else {}
    return {"role": _ROLE_OF[role.strip().lower()], "content": _text(content, further, where)} | further


def _one(turn: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """The value under whichever of two names it has."""
    given = [turn[name] for name in names if turn.get(name) is not None]
    if len(given) == 2 and given[0] != given[1]:
        raise UserError(f"{where}: it has both {names[0]} and {names[1]}, and they differ")
    return given[0] if given else None


def _text(content: Any, further: Mapping[str, Any], where: str) -> str:
    """A turn's text; parts of text are joined, and a turn that calls a tool may have none."""
    if isinstance(content, str):
        return content
    if content is None and "tool_calls" in further:
        return ""
    if isinstance(content, list | tuple):
        parts = [_without_nulls(part) if isinstance(part, Mapping) else part for part in content]
        if all(isinstance(p, Mapping) and p.keys() == {"type", "text"} and p["type"] == "text" for p in parts):
            return "".join(part["text"] for part in parts)
        odd = next((p.get("type") if isinstance(p, Mapping) else p for p in parts), None)
        raise UserError(f"{where}: its content has parts that are no text ({odd!r}); only texts are read here")
    raise UserError(f"{where}: its content is {repr(content)[:40]}, allowed is a text")


def _call(call: Any, where: str) -> Any:
    """A tool call, its arguments as values: templates write a text as JSON again, in quotes."""
    function = _named(call, where, "a tool call")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return call  # no JSON: handed on as it is
        function = {**function, "arguments": arguments}
        return {**call, "function": function} if "function" in call else function
    return call


def _named(tool: Any, where: str, noun: str) -> Mapping[str, Any]:
    """What a tool, or a call of one, says under `function`, or says itself; it has a name."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UserError(f"{where}: {noun} is {repr(tool)[:40]}, allowed is a mapping with the name of a function")
    return function


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list | tuple) else value
