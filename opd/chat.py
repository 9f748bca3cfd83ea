"""Between messages and token ids: the only place where text is tokenised, once, before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Template = Literal["auto", "chat", "plain"]
Messages = Sequence[Mapping[str, str]]


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
    if template == "chat" or (template == "auto" and tokenizer.chat_template):
        settings = {**(template_kwargs or {}), "tokenize": False, "add_generation_prompt": True}
        texts = [tokenizer.apply_chat_template(list(messages), **settings) for messages in conversations]
        bos: list[int] = []
    else:
        texts = ["\n\n".join(turn["content"] for turn in messages) for messages in conversations]
        bos = _bos(tokenizer)
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [row if row[: len(bos)] == bos else bos + row for row in rows]


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


def _bos(tokenizer: Any) -> list[int]:
    """Find out whether this tokenizer begins plain text with a BOS; what it appends is no part of a prompt."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
