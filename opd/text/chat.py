"""Between messages and token ids: the only place where text is tokenised, once, before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Template = Literal["auto", "chat", "plain"]
Messages = Sequence[Mapping[str, str]]
_MARK = "\ue000"
"""Stands for a turn whose text does not matter; no template writes this character."""


def render(
    tokenizer: Any,
    messages: Messages,
    *,
    template: Template = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Turn messages into the ids of a prompt that is ready for a completion.

    Args:
        tokenizer: a transformers tokenizer.
        messages: `role` and `content` of each turn.
        template: `chat` applies the tokenizer's chat template with its generation prompt; `plain`, for base models,
            joins the contents by blank lines; `auto` is `chat` where the tokenizer has a template, else `plain`.
        template_kwargs: passed to the chat template, such as `enable_thinking`.

    Returns:
        The ids. A chat template writes its own BOS; plain text gets the one that the tokenizer would give it.
    """
    return render_all(tokenizer, [messages], template=template, template_kwargs=template_kwargs)[0]


def render_all(
    tokenizer: Any,
    conversations: Sequence[Messages],
    *,
    template: Template = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[list[int]]:
    """Do `render` for several conversations, tokenised together, which is faster."""
    if not conversations:
        return []
    texts = [_text(tokenizer, messages, template, template_kwargs) for messages in conversations]
    bos = [] if _chat(tokenizer, template) else _bos(tokenizer)
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [row if row[: len(bos)] == bos else bos + row for row in rows]


def completion_ids(
    tokenizer: Any,
    messages: Messages,
    completion: str,
    prompt_ids: Sequence[int],
    stop: Sequence[int],
    *,
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
        template: as for `render`.
        template_kwargs: as for `render`.

    Returns:
        What the chat template writes after the prompt, up to the first stop id; where the prompt is not how the
        rendered conversation begins, or without a chat template, the text alone and the first stop id.
    """
    ids: list[int] = []
    if _chat(tokenizer, template):
        turns = [*messages, {"role": "assistant", "content": completion}]
        ids = _ids(tokenizer, _text(tokenizer, turns, template, template_kwargs, generate=False))
    follows = ids[: len(prompt_ids)] == list(prompt_ids)
    ids = ids[len(prompt_ids) :] if follows else _ids(tokenizer, completion)
    end = _end_of_turn(ids, stop)
    return ids[:end] if end else [*ids, *stop[:1]]


def reply_ids(
    tokenizer: Any,
    messages: Messages,
    replies: Messages,
    stop: Sequence[int],
    *,
    template: Template = "auto",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Turn the answer to a student's turn into the ids that come between that turn and the student's next one.

    Only what follows the student's turn is tokenised, so that its own ids stay as it sampled them. What the template
    writes up to the end of that turn is left out: the student has written its stop id itself.

    Args:
        tokenizer: a transformers tokenizer.
        messages: the conversation up to the student's turn, without it.
        replies: the turns that answer it.
        stop: ids that end a turn of the student's.
        template: as for `render`.
        template_kwargs: as for `render`.
    """
    mark = _MARK
    while any(mark in turn["content"] for turn in (*messages, *replies)):
        mark += _MARK
    before = [*messages, {"role": "assistant", "content": mark}]
    ended = _text(tokenizer, before, template, template_kwargs, generate=False).rpartition(mark)[2]
    follows = _text(tokenizer, [*before, *replies], template, template_kwargs).rpartition(mark)[2]
    return _ids(tokenizer, follows)[_end_of_turn(_ids(tokenizer, ended), stop) :]


def decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Turn a completion's ids into the text that people and verifiers read, without special tokens."""
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def with_system(messages: Messages, system: str | None) -> tuple[Mapping[str, str], ...]:
    """Put a system turn before messages that have none."""
    if not system or (messages and messages[0]["role"] == "system"):
        return tuple(messages)
    return ({"role": "system", "content": system}, *messages)


def without_system(messages: Messages) -> tuple[Mapping[str, str], ...]:
    """Leave the system turn out, where there is one."""
    return tuple(turn for turn in messages if turn["role"] != "system")


def _chat(tokenizer: Any, template: Template) -> bool:
    return template == "chat" or (template == "auto" and bool(tokenizer.chat_template))


def _text(
    tokenizer: Any,
    messages: Messages,
    template: Template,
    template_kwargs: Mapping[str, Any] | None,
    generate: bool = True,
) -> str:
    """Write a conversation out; `generate`: ready for the student's turn."""
    if not _chat(tokenizer, template):
        return "\n\n".join(turn["content"] for turn in messages)
    settings = {**(template_kwargs or {}), "tokenize": False, "add_generation_prompt": generate}
    text: str = tokenizer.apply_chat_template(list(messages), **settings)
    return text


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _end_of_turn(ids: Sequence[int], stop: Sequence[int]) -> int:
    """Count the ids up to the first stop id and with it; 0 where there is none."""
    return next((i + 1 for i, token in enumerate(ids) if token in stop), 0)


def _bos(tokenizer: Any) -> list[int]:
    """Find out whether this tokenizer begins plain text with a BOS; what it appends is no part of a prompt."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
