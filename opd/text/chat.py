"""Between messages and token ids: the only place where text is tokenised, once, before anything is sampled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from opd.types import Message, UserError

Template = Literal["auto", "chat", "plain"]
Messages = Sequence[Message]
Tools = Sequence[Mapping[str, Any]]
_OPENED = re.compile(r"<([A-Za-z]\w*)>\s*$")
_CLOSED = re.compile(r"</([A-Za-z]\w*)>\s*$")
_HEAD = 60
"""Characters of a turn that are looked for in what a template wrote."""
_MARK = "\ue000"
"""Stands for a turn whose text does not matter; no template writes this character."""


def render(
    tokenizer: Any,
    messages: Messages,
    *,
    tools: Tools = (),
    template: Template = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Turn messages into the ids of a prompt that is ready for a completion.

    Args:
        tokenizer: a transformers tokenizer.
        messages: `role` and `content` of each turn, and what more the template reads.
        tools: what the template is to say of tools.
        template: `chat` applies the tokenizer's chat template with its generation prompt; `plain`, for base models,
            joins the contents by blank lines; `auto` is `chat` where the tokenizer has a template, else `plain`.
        template_kwargs: passed to the chat template, such as `enable_thinking`.

    Returns:
        The ids. A chat template writes its own BOS; plain text gets the one that the tokenizer would give it.

    Raises:
        UserError: the template does not take these messages, or leaves a part of them out.
    """
    return render_all(tokenizer, [messages], [tools], template=template, template_kwargs=template_kwargs)[0]


def render_all(
    tokenizer: Any,
    conversations: Sequence[Messages],
    tools: Sequence[Tools] | None = None,
    *,
    template: Template = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[list[int]]:
    """Do `render` for several conversations, tokenised together, which is faster."""
    if not conversations:
        return []
    given = tools or [()] * len(conversations)
    script = Script(tokenizer, template, template_kwargs or {})
    texts = [script.prompt(messages, own) for messages, own in zip(conversations, given, strict=True)]
    bos = [] if script.chat else _bos(tokenizer)
    rows = _all_ids(tokenizer, texts)
    return [row if row[: len(bos)] == bos else bos + row for row in rows]


def completion_ids(
    tokenizer: Any,
    messages: Messages,
    completion: str,
    prompt_ids: Sequence[int],
    stop: Sequence[int],
    *,
    closing: Mapping[str, Any] | None = None,
    tools: Tools = (),
    template: Template = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Turn a given answer into the ids that the student would have written it with, the id that ends it included.

    Args:
        tokenizer: a transformers tokenizer.
        messages: the conversation that is answered.
        completion: the answer's text.
        prompt_ids: what `render` made of the messages.
        stop: ids that end a completion; the first one is put where the template writes none of them.
        closing: further fields of the answer's turn, `reasoning_content` and `tool_calls`.
        tools: as for `render`.
        template: as for `render`.
        template_kwargs: as for `render`.

    Returns:
        What the chat template writes after the prompt, up to the first stop id, be it one that the next turn begins
        with; where the prompt ends in words that a rendered answer does not have, the text alone, with what an opened
        block (`<think>`) needs to be closed. Without a chat template the text alone. The first stop id where there is
        none.

    Raises:
        UserError: the template leaves a part of the answer out.
    """
    script = Script(tokenizer, template, template_kwargs or {})
    if not script.chat:
        if closing:
            raise UserError(f"the completion has {min(closing)}, which plain text cannot say; use template=chat")
        return [*_ids(tokenizer, completion), *stop[:1]]
    turn = {"role": "assistant", "content": completion, **(closing or {})}
    begun, whole = script.prompt(messages, tools), script.write([*messages, turn], tools)
    ended, follows = script.after(messages, [{"role": "user", "content": "a"}], tools)
    said = whole.removesuffix(ended)
    if not whole.startswith(begun) or _left_open(begun, said):
        said = begun + _continued(begun, turn, script.between(messages, tools))
    script.check_answer(turn, begun, said.removeprefix(begun))
    ids: list[int] = []
    for end in (ended, follows):  # some templates end no turn: the role of the next one is what stops the student
        ids = _ids(tokenizer, said + end)
        kept = ids[: len(prompt_ids)] == list(prompt_ids)
        ids = ids[len(prompt_ids) :] if kept else _ids(tokenizer, said.removeprefix(begun) + end)
        if n := _end_of_turn(ids, stop):
            return ids[:n]
    return [*_ids(tokenizer, said.removeprefix(begun)), *stop[:1]]


def reply_ids(
    tokenizer: Any,
    messages: Messages,
    replies: Messages,
    stop: Sequence[int],
    *,
    last: int | None = None,
    tools: Tools = (),
    template: Template = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Turn the answer to a student's turn into the ids that come between that turn and the student's next one.

    Only what follows the student's turn is tokenised, so that its own ids stay as it sampled them: also thoughts that
    the template would leave out of earlier turns. What the template writes up to the end of that turn is left out, the
    student has written its stop id itself; where that is the next turn's role (GLM), it is not written again.

    Args:
        tokenizer: a transformers tokenizer.
        messages: the conversation up to the student's turn, without it.
        replies: the turns that answer it.
        stop: ids that end a turn of the student's.
        last: the id that the student ended its turn with.
        tools: as for `render`.
        template: as for `render`.
        template_kwargs: as for `render`.
    """
    script = Script(tokenizer, template, template_kwargs or {})
    ended, follows = script.after(messages, replies, tools)
    ids = _ids(tokenizer, follows)
    n = _end_of_turn(_ids(tokenizer, ended), stop)
    if not n and last is not None:
        k = _end_of_turn(ids, stop)
        if k and ids[k - 1] == last and not tokenizer.decode(ids[: k - 1]).strip():
            n = k
    return ids[n:]


@dataclass(frozen=True)
class Script:
    """A tokenizer's way to write conversations out."""

    tokenizer: Any
    template: Template
    template_kwargs: Mapping[str, Any]

    @property
    def chat(self) -> bool:
        """Whether a chat template is used."""
        return self.template == "chat" or (self.template == "auto" and bool(self.tokenizer.chat_template))

    def write(self, messages: Messages, tools: Tools, generate: bool = False) -> str:
        """Write a conversation out; `generate`: ready for the student's turn."""
        if not self.chat:
            return "\n\n".join(turn["content"] for turn in messages)
        settings = {**self.template_kwargs, "tokenize": False, "add_generation_prompt": generate}
        if tools:
            settings["tools"] = list(tools)
        problem: Exception | None = None
        for as_text in (False, True):  # some templates want the arguments of a call as text
            try:
                turns = [_shown(turn, as_text) for turn in messages]
                text: str = self.tokenizer.apply_chat_template(turns, **settings)
            except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
                problem = problem or error
            else:
                return text
        roles = ", ".join(turn["role"] for turn in messages)
        raise UserError(
            f"the chat template does not take these messages (of {roles}): {str(problem).splitlines()[0]}; they begin "
            f"{messages[0]['content'][:40]!r}"
        ) from problem

    def prompt(self, messages: Messages, tools: Tools) -> str:
        """Write a prompt out; UserError where turns or tools are not in it."""
        text = self.write(messages, tools, generate=True)
        if not self.chat:
            if tools or any("tool_calls" in turn for turn in messages):
                raise UserError("the prompt has tools, which plain text cannot say; use template=chat")
            return text
        for turn in messages:
            if turn["role"] not in ("assistant", "system") and not _is_in(turn["content"], text):
                raise UserError(
                    f"the chat template leaves out a turn of role {turn['role']!r}: {turn['content'][:40]!r}; rename "
                    "the role, or use another template"
                )
        called = [call for turn in messages for call in turn.get("tool_calls", ())]
        for name in map(_name, (*called, *tools)):
            if name not in text:
                raise UserError(f"the chat template says nothing of the tool {name!r}; it is not made for tools")
        return text

    def check_answer(self, turn: Message, begun: str, text: str) -> None:
        """UserError where a part of an answer's turn is not in what was written of it, or is there twice."""
        block, content = _CLOSED.search(begun), turn["content"].lstrip()
        if block and ("reasoning_content" in turn or content.startswith(f"<{block[1]}>")):
            raise UserError(
                f"the prompt ends a <{block[1]}> block, and the completion has thoughts of its own: begins "
                f"{content[:40]!r}; let the template think (template_kwargs: enable_thinking) or take them out"
            )
        if opened := _OPENED.search(begun):
            content = content.removeprefix(f"<{opened[1]}>").lstrip()
        missing = [
            f"the call of the tool {name!r}" for name in map(_name, turn.get("tool_calls", ())) if name not in text
        ]
        missing += [] if _is_in(turn.get("reasoning_content", ""), text) else ["its reasoning_content"]
        missing += [] if _is_in(content, text) else [f"its beginning {content[:40]!r}"]
        if missing:
            raise UserError(f"the chat template leaves out of a completion: {missing[0]}")

    def between(self, messages: Messages, tools: Tools) -> str | None:
        """What is written between an answer's thoughts and its words; None where thoughts are not written."""
        thought, said = _MARK * 2, _MARK * 3
        turn = {"role": "assistant", "content": f"a{said}", "reasoning_content": f"{thought}a"}
        found = re.search(f"{thought}a(.*)a{said}", self.write([*messages, turn], tools), re.DOTALL)
        return found[1] if found else None

    def after(self, messages: Messages, replies: Messages, tools: Tools) -> tuple[str, str]:
        """What is written after an answer that ends a conversation, and after one that is replied to."""
        mark = _MARK
        while any(mark in turn["content"] for turn in (*messages, *replies)):
            mark += _MARK
        before = [*messages, {"role": "assistant", "content": mark}]
        ended = self.write(before, tools).rpartition(mark)[2]
        return ended, self.write([*before, *replies], tools, generate=True).rpartition(mark)[2]


def decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Turn a completion's ids into the text that people and verifiers read, without special tokens."""
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def with_system(messages: Messages, system: str | None) -> tuple[Message, ...]:
    """Put a system turn before messages that have none."""
    if not system or (messages and messages[0]["role"] == "system"):
        return tuple(messages)
    return ({"role": "system", "content": system}, *messages)


def without_system(messages: Messages) -> tuple[Message, ...]:
    """Leave the system turn out, where there is one."""
    return tuple(turn for turn in messages if turn["role"] != "system")


def _left_open(begun: str, whole: str) -> bool:
    """Whether a rendered answer lies within the block for thoughts that the prompt has opened, or opens it again."""
    block, answer = _OPENED.search(begun), whole[len(begun) :].lstrip()
    return block is not None and (f"</{block[1]}>" not in answer or answer.startswith(f"<{block[1]}>"))


def _continued(begun: str, turn: Message, between: str | None) -> str:
    """An answer's text after a prompt that a rendered answer does not go on from.

    Where the prompt opens a block for thoughts (`<think>`), the answer's own is gone on with, or an empty one closed by
    what the template writes `between` thoughts and words.
    """
    text: str = turn["content"]
    block = _OPENED.search(begun)
    if not block:
        return text
    opens, closes = f"<{block[1]}>", f"</{block[1]}>"
    closing = between if between and closes in between else f"\n{closes}\n\n"
    if "reasoning_content" in turn:
        return str(turn["reasoning_content"]).strip() + closing + text
    if text.lstrip().startswith(opens):
        return text.lstrip().removeprefix(opens).lstrip("\n")
    return text if closes in text else closing + text


def _shown(turn: Message, as_text: bool) -> dict[str, Any]:
    """A turn as templates read it: thoughts under both of their names, arguments of calls as values or as text."""
    out = dict(turn)
    if "reasoning_content" in turn:
        out["thinking"] = turn["reasoning_content"]
    if as_text and "tool_calls" in turn:
        out["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.dumps(call["function"].get("arguments"))}}
            if "function" in call
            else {**call, "arguments": json.dumps(call.get("arguments"))}
            for call in turn["tool_calls"]
        ]
    return out


def _is_in(part: str, text: str) -> bool:
    """Whether the beginning of a turn is in a text, apart from white space, as it is or within JSON."""
    head, squeezed = "".join(part.split())[:_HEAD], "".join(text.split())
    return any(form in squeezed for form in (head, *(json.dumps(head, ensure_ascii=a)[1:-1] for a in (True, False))))


def _name(tool: Mapping[str, Any]) -> str:
    """The name of a tool, or of a call's."""
    return str(tool.get("function", tool).get("name", ""))


def _ids(tokenizer: Any, text: str) -> list[int]:
    return _all_ids(tokenizer, [text])[0]


def _all_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, without what the tokenizer would add; UserError for what is no text."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            around = text[max(0, error.start - 20) : error.start + 20]
            raise UserError(f"{around!r} holds half of a character, which no tokenizer reads") from error
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def _end_of_turn(ids: Sequence[int], stop: Sequence[int]) -> int:
    """Count the ids up to the first stop id and with it; 0 where there is none."""
    return next((i + 1 for i, token in enumerate(ids) if token in stop), 0)


def _bos(tokenizer: Any) -> list[int]:
    """Find out whether this tokenizer begins plain text with a BOS; what it appends is no part of a prompt."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
