"""Between messages and token ids: the only place where text is tokenised, once, before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opd.text.script import Messages, Script, Template, Tools
from opd.types import Message, UserError


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
    script = Script(tokenizer, template, template_kwargs)
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
        with; `Script.answer` says what that is where the prompt ends in words of its own. Without a chat template the
        text alone. The first stop id where there is none.

    Raises:
        UserError: the template leaves a part of the answer out, or the answer has a stop id in its midst.
    """
    for part in (completion, (closing or {}).get("reasoning_content", "")):
        _check_no_end(tokenizer, part, stop)
    script = Script(tokenizer, template, template_kwargs)
    if not script.chat:
        if closing:
            raise UserError(f"the completion has {min(closing)}, which plain text cannot say; use template=chat")
        return _ended(_ids(tokenizer, completion), stop)
    answer = script.answer(messages, {"role": "assistant", "content": completion, **(closing or {})}, tools)
    before = answer.shown if _ids(tokenizer, answer.shown) == list(prompt_ids) else ""
    ends = [answer.ended, answer.ended + answer.follows] if _begins(tokenizer, answer.follows, stop) else [answer.ended]
    for end in ends:
        ids = _after(tokenizer, prompt_ids, before, answer.said + end)
        if n := _end_of_turn(ids, stop):
            if end == answer.ended and (lost := tokenizer.decode(ids[n:]).strip()) not in end:
                raise UserError(f"{script.name} ends a turn in the midst of a completion, before {lost[:40]!r}")
            return ids[:n]
    return _ended(_after(tokenizer, prompt_ids, before, answer.said), stop)


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
    bridge = Script(tokenizer, template, template_kwargs).bridge(messages, replies, tools)
    follows = bridge.follows
    n = _end_of_turn(_ids(tokenizer, bridge.ended), stop)
    if not n and bridge.called:  # the rest of the call is the student's
        follows = follows.removeprefix(bridge.ended)
    ids = _ids(tokenizer, follows)
    if not n and last is not None:
        k = _end_of_turn(ids, stop)
        if k and ids[k - 1] == last and not tokenizer.decode(ids[: k - 1]).strip():
            n = k
    return ids[n:]


def decode(tokenizer: Any, tokens: Sequence[int], special: bool = False) -> str:
    """Turn a completion's ids into the text that people and verifiers read; `special`: with its special tokens.

    Spaces stay as they were written, which some tokenizers (Llama 3) would tidy up.
    """
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False)
    return text


def with_system(messages: Messages, system: str | None) -> tuple[Message, ...]:
    """Put a system turn before messages that have none."""
    if not system or (messages and messages[0]["role"] == "system"):
        return tuple(messages)
    return ({"role": "system", "content": system}, *messages)


def without_system(messages: Messages) -> tuple[Message, ...]:
    """Leave the system turn out, where there is one."""
    return tuple(turn for turn in messages if turn["role"] != "system")


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


def _after(tokenizer: Any, prompt_ids: Sequence[int], shown: str, said: str) -> list[int]:
    """Ids of what is said after a prompt: as in the whole text, where the prompt's own ids are the same in that."""
    ids = _ids(tokenizer, shown + said)
    return ids[len(prompt_ids) :] if shown and ids[: len(prompt_ids)] == list(prompt_ids) else _ids(tokenizer, said)


def _begins(tokenizer: Any, text: str, stop: Sequence[int]) -> bool:
    """Whether a text begins with a stop id, white space aside."""
    return any(text.lstrip().startswith(tokenizer.decode([i]).lstrip() or "\0") for i in stop)


def _ended(ids: list[int], stop: Sequence[int]) -> list[int]:
    """Ids with the first stop id behind them, unless they end with one."""
    return ids if ids and ids[-1] in stop else [*ids, *stop[:1]]


def _check_no_end(tokenizer: Any, text: str, stop: Sequence[int]) -> None:
    """UserError where a part of an answer says what ends it, before its own end: the rest would be lost."""
    ids = _ids(tokenizer, text.rstrip())
    if n := _end_of_turn(ids[:-1], stop):
        raise UserError(
            f"the completion has {tokenizer.decode([ids[n - 1]])!r} in its midst, which ends a turn; take it out of "
            f"{text[:40]!r}"
        )


def _end_of_turn(ids: Sequence[int], stop: Sequence[int]) -> int:
    """Count the ids up to the first stop id and with it; 0 where there is none."""
    return next((i + 1 for i, token in enumerate(ids) if token in stop), 0)


def _bos(tokenizer: Any) -> list[int]:
    """Find out whether this tokenizer begins plain text with a BOS; what it appends is no part of a prompt."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
