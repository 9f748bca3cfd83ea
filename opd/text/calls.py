"""Calls of tools as chat templates read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from opd.types import Message


def with_calls(turns: Sequence[Message], argument: str) -> list[Message]:
    """Assistant turns that tools reply to as calls of these tools, for templates that ask for that."""
    out: list[Message] = []
    for i, turn in enumerate(turns):
        replies = []
        for reply in turns[i + 1 :]:
            if reply["role"] != "tool":
                break
            replies.append(reply)
        if turn["role"] == "assistant" and replies and "tool_calls" not in turn:
            turn = {**turn, "content": "", "tool_calls": [_call_of(reply, argument) for reply in replies]}
        out.append(turn)
    return out


def _call_of(reply: Message, argument: str) -> dict[str, Any]:
    function = {"name": reply.get("name", "tool"), "arguments": {"a": argument}}
    return {"id": reply.get("tool_call_id", "0" * 9), "type": "function", "function": function}


def with_replies(turns: Sequence[Message]) -> list[Message]:
    """A conversation that ends with calls, and a reply to each."""
    calls = turns[-1]["tool_calls"]
    ids = [{"tool_call_id": call["id"]} if "id" in call else {} for call in calls]
    replies = [{"role": "tool", "content": "a", "name": name_of(c), **i} for c, i in zip(calls, ids, strict=True)]
    return [*turns, *replies]


def shown(turn: Message, as_text: bool) -> dict[str, Any]:
    """A turn as templates read it: thoughts under both of their names, arguments of calls as values or as text."""
    out = dict(turn)
    if "reasoning_content" in turn:
        out["thinking"] = turn["reasoning_content"]
    if as_text and "tool_calls" in turn:
        out["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _json(call["function"].get("arguments"))}}
            if "function" in call
            else {**call, "arguments": _json(call.get("arguments"))}
            for call in turn["tool_calls"]
        ]
    return out


def _json(arguments: Any) -> str:
    """As templates write values: letters of all scripts as they are."""
    return json.dumps(arguments, ensure_ascii=False)


def name_of(tool: Mapping[str, Any]) -> str:
    """The name of a tool, or of a call's."""
    return str(tool.get("function", tool).get("name", ""))
