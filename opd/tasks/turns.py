"""Chat turns as rows hold them, read whole: every field is handed on, or the turn is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opd.tasks.cells import check_readable, check_sayable, text_of
from opd.tasks.parsing import NotJsonError, parsed
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
_WEIGHT = "weight"
"""Whether a turn is trained on, in OpenAI's format."""
_AUTHOR = "author"
"""Who says a turn that has neither `role` nor `from`."""


def messages_of(cell: Any, where: str) -> Messages:
    """Read a prompt cell: a text is one user turn, unless it is messages in JSON; those lose their closing answers.

    Raises:
        UserError: the cell is neither, a turn cannot be read, or nothing is left; `where` names it.
    """
    cell = _unpacked(cell, where)
    if isinstance(cell, str):
        return ({"role": "user", "content": cell},)
    turns = turns_of(cell, where)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    for turn in turns:  # only closing turns are trained on
        turn.pop(_WEIGHT, None)
    if not turns:
        raise UserError(f"{where}: these messages have no turn to answer: {repr(cell)[:60]}")
    return tuple(turns)


def closing_turns(cell: Any, where: str = "") -> dict[str, Any]:
    """The assistant's turn that a prompt cell's messages end with; empty where they do not, or for a text.

    Several are taken together as paragraphs, unless one holds more than a text.
    """
    cell = _unpacked(cell, where)
    if isinstance(cell, str):
        return {}
    closing: list[dict[str, Any]] = []
    for turn in reversed(turns_of(cell, where)):
        if turn["role"] != "assistant":
            break
        if (weight := turn.pop(_WEIGHT, 1)) != 1:
            raise UserError(
                f"{where}: the turn that closes these messages has the weight {weight!r}, and a given answer is "
                "trained on in full; leave it out where it is not to be learned"
            )
        closing.insert(0, turn)
    if len(closing) < 2:
        return closing[0] if closing else {}
    for turn in closing:
        if further := turn.keys() - {"role", "content"}:
            raise UserError(f"{where}: several assistant turns close these messages, and one has {min(further)}")
    return {"role": "assistant", "content": "\n\n".join(turn["content"] for turn in closing)}


def completion_of(cell: Any, where: str, asked: Messages = ()) -> dict[str, Any]:
    """Read a cell of what the data answers as the assistant's turn: a text, a number, or such turns; null is none.

    Data of preferences repeats what was `asked` before them.
    """
    if cell is None:
        return {}
    if not isinstance(cell, list | tuple):
        return {"role": "assistant", "content": text_of(cell, where)}
    turns = turns_of(cell, where)
    if asked and len(turns) > len(asked) and tuple(turns[: len(asked)]) == asked:
        turns = turns[len(asked) :]
    if odd := next((turn["role"] for turn in turns if turn["role"] != "assistant"), None):
        raise UserError(f"{where}: a completion is a text or turns of the assistant, and one is of {odd}")
    return closing_turns(cell, where)


def turns_of(cell: Any, where: str) -> list[dict[str, Any]]:
    """Read chat messages of `role` and `content` (OpenAI) or of `from` and `value` (ShareGPT), all fields of each.

    Fields of a turn that are null are left out; what is null within arguments is theirs.
    """
    if not isinstance(cell, list | tuple) or not all(isinstance(turn, Mapping) for turn in cell):
        raise UserError(f"{where}: a prompt is a text or a list of role and content, not {repr(cell)[:60]}")
    return [_turn(turn, f"{where}, turn {i}") for i, turn in enumerate(cell, start=1)]


def tools_of(cell: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """Read a row's tools: a list of their descriptions, or that in JSON; empty where there are none."""
    if isinstance(cell, str) and cell.strip():
        cell = parsed(cell, f"{where}: the text of its tools")
        check_readable(cell, f"{where}: the text of its tools")
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return ()
    if not isinstance(cell, list | tuple):
        raise UserError(f"{where}: its tools must be a list of descriptions, not {repr(cell)[:60]}")
    for tool in cell:
        _named(tool, where, "one of its tools")
    check_sayable(cell, f"{where}: one of its tools")
    return tuple(cell)


def _unpacked(cell: Any, where: str) -> Any:
    """Messages that a cell holds as a text in JSON, as tables of texts have to; any other cell as it is."""
    if not (isinstance(cell, str) and cell.lstrip().startswith("[")):
        return cell
    try:
        found = parsed(cell, where)
    except NotJsonError:
        return cell
    names = {"role", "from", _AUTHOR}
    whole = isinstance(found, list) and found and all(isinstance(t, Mapping) and t.keys() & names for t in found)
    return found if whole else cell


def _turn(turn: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = _without_nulls(turn)
    if _AUTHOR in given and not given.keys() & {"role", "from"}:
        given["role"] = given.pop(_AUTHOR)
    role, content = (_one(given, names, where) for names in _SIDES)
    if not isinstance(role, str) or role.strip().lower() not in _ROLE_OF:
        known = ", ".join(sorted(_ROLE_OF))
        said = "it has no role" if role is None else f"{repr(role)[:40]} is no role that is known"
        raise UserError(f"{where}: {said}; known are {known}")
    further = _further(given, where)
    return {"role": _ROLE_OF[role.strip().lower()], "content": _text(content, further, where)} | further


def _further(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a turn has beside role and content, each field under its one name."""
    thoughts = {name: given[name] for name in ("reasoning_content", *_THOUGHTS) if name in given}
    for name, thought in thoughts.items():
        if not isinstance(thought, str):
            raise UserError(f"{where}: its {name} is {repr(thought)[:40]}, allowed is a text")
    said = {thought for thought in thoughts.values() if thought}
    if len(said) > 1:
        raise UserError(f"{where}: its {' and '.join(thoughts)} differ; keep one of them")
    names = {*thoughts, *(name for side in _SIDES for name in side)}
    further = {k: v for k, v in given.items() if k not in names} | ({"reasoning_content": said.pop()} if said else {})
    for name in _TEXTS & further.keys():
        if not isinstance(further[name], str):
            raise UserError(f"{where}: its {name} is {repr(further[name])[:40]}, allowed is a text")
    if "tool_calls" in further:
        calls = further.pop("tool_calls")
        if not isinstance(calls, list | tuple):
            raise UserError(f"{where}: its tool_calls are {repr(calls)[:40]}, allowed is a list")
        further |= {"tool_calls": [_call(call, where) for call in calls]} if calls else {}
    check_sayable(further, f"{where}: one of its fields")
    return further


def _one(turn: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """The value under whichever of two names it has."""
    given = [turn[name] for name in names if name in turn]
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
        for part in parts:
            if not _is_text(part):
                kind = part["type"] if isinstance(part, Mapping) and part.get("type", "text") != "text" else part
                raise UserError(
                    f"{where}: its content has parts that are no text ({repr(kind)[:40]}); only texts are read here"
                )
        return "".join(part["text"] for part in parts)
    raise UserError(f"{where}: its content is {repr(content)[:40]}, allowed is a text")


def _is_text(part: Any) -> bool:
    whole = isinstance(part, Mapping) and part.keys() == {"type", "text"} and part["type"] == "text"
    return whole and isinstance(part["text"], str)


def _call(call: Any, where: str) -> Any:
    """A tool call, its arguments as values: templates write a text as JSON again, in quotes."""
    function = _without_nulls(_named(call, where, "a tool call"))
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        function["arguments"] = _arguments(arguments, where)
    return {**_without_nulls(call), "function": function} if "function" in call else function


def _arguments(text: str, where: str) -> Any:
    """What a text of arguments says; the text as it is where that is no JSON."""
    where = f"{where}: the arguments of a tool call"
    try:
        value = parsed(text, where)
    except NotJsonError:
        return text
    check_readable(value, where)
    return value


def _named(tool: Any, where: str, noun: str) -> Mapping[str, Any]:
    """What a tool, or a call of one, says under `function`, or says itself; it has a name."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UserError(f"{where}: {noun} is {repr(tool)[:40]}, allowed is a mapping with the name of a function")
    return function


def _without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping without the fields that are null, as tables have them; what is within the others stays."""
    return {name: inner for name, inner in value.items() if inner is not None}
