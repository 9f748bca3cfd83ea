"""How a tokenizer writes conversations out, as text: what it writes around a turn is found with a mark in its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from opd.text.bounded import Runaway, written
from opd.text.calls import shown, with_calls, with_replies
from opd.text.kept import Marks, check_plain, check_read, check_settings, surely_in
from opd.text.thoughts import Block, parted
from opd.types import Message, UserError

Template = Literal["auto", "chat", "plain"]
Messages = Sequence[Message]
Tools = Sequence[Mapping[str, Any]]
MARK = "\ue000"
"""Stands for a turn whose text does not matter; no template writes this character."""
_ASKED = "\ue001"
"""Stands behind the last turn before an answer."""
_HALF_TAG = re.compile(r"<[^<>\s]*\Z")


@dataclass(frozen=True)
class Answer:
    """What a student writes after a prompt, as text."""

    shown: str
    """The prompt."""
    said: str
    """Thoughts, words and calls."""
    ended: str
    """What the template ends the turn with."""
    follows: str
    """What the next turn begins with: some templates end no turn, and the role of the next one stops the student."""


@dataclass(frozen=True)
class Bridge:
    """What is written between a student's turn and its next one, as text."""

    ended: str
    """What ends the turn where the conversation ends with it; the student may have written it."""
    follows: str
    """All that comes after the turn, its end included."""
    called: bool
    """Whether the turn is a call of tools, and both texts begin within its last argument."""


class _Around(NamedTuple):
    """What is written around an answer."""

    begun: str
    """What a prompt begins it with."""
    before: str
    """What stands before the words of an answer that is written out, and behind them."""
    ended: str


@dataclass(frozen=True)
class Script:
    """A tokenizer's way to write conversations out."""

    tokenizer: Any
    template: Template = "auto"
    template_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """UserError for a setting that the template does not read."""
        if self.chat and self.template_kwargs:
            check_settings(self.template_kwargs, self.source, self.name)

    @property
    def chat(self) -> bool:
        """Whether a chat template is used."""
        return self.template == "chat" or (self.template == "auto" and bool(self.tokenizer.chat_template))

    @property
    def source(self) -> str:
        """The text of the template, or of all that the tokenizer has."""
        given = self.tokenizer.chat_template
        return "\n".join(given.values()) if isinstance(given, dict) else str(given)

    @property
    def name(self) -> str:
        """The template as errors call it."""
        path = getattr(self.tokenizer, "name_or_path", "")
        return f"the chat template of {path}" if path else "the chat template"

    def write(self, messages: Messages, tools: Tools, generate: bool = False) -> str:
        """Write a conversation out; `generate`: ready for the student's turn."""
        if not self.chat:
            return "\n\n".join(turn["content"] for turn in messages)
        settings = {**(self.template_kwargs or {}), "tokenize": False, "add_generation_prompt": generate}
        if tools:
            settings["tools"] = list(tools)
        problem: Exception | None = None
        render = self.tokenizer.apply_chat_template
        for as_text in (False, True):  # some templates want the arguments of a call as text
            try:
                turns = [shown(turn, as_text) for turn in messages]
                return written(self.name, turns, partial(render, turns, **settings))
            except Runaway:
                raise
            except Exception as error:  # a template is somebody's program, and fails like one
                problem = problem or error
        roles = ", ".join(turn["role"] for turn in messages)
        raise UserError(
            f"{self.name} does not take these messages (of {roles}): {_first_line(problem)}; they begin "
            f"{messages[0]['content'][:40].rstrip(MARK + _ASKED)!r}"
        ) from problem

    def prompt(self, messages: Messages, tools: Tools) -> str:
        """Write a prompt out; UserError where a part of the turns or tools is not in it."""
        if not self.chat:
            check_plain(messages, tools)
            return self.write(messages, tools)
        check_read(messages, self.source, self.name)
        text = self.write(messages, tools, generate=True)
        if tools or not surely_in(messages, text):
            marks = Marks()
            marks.check(self.write(marks.turns(messages), marks.tools(tools), generate=True), self.name)
        return text

    def answer(self, messages: Messages, turn: Message, tools: Tools) -> Answer:
        """What a student that gives this answer writes after the prompt; UserError where a part of it is not there.

        That is what the template writes after the prompt. Where the prompt ends in words that a rendered answer does
        not have, it is what is written after the role instead; and in a block for thoughts that the prompt has opened,
        the answer's own thoughts come first, or what closes an empty block.
        """
        prompt = self.prompt(messages, tools)
        check_read([turn], self.source, self.name, written=("reasoning_content",))
        before, _, ended = self._asked(messages, tools, _said(MARK)).rpartition(MARK)
        around = _Around(self._asked(messages, tools), before, ended)
        said = self._answered(messages, turn, tools, around)
        marks = Marks()
        self._check_answer(turn, around.begun, said, marks, self._answered(messages, marks.answer(turn), tools, around))
        follows = self._after_answer(messages, turn, tools, ended)
        ends = ended if said.endswith(ended) else ""
        return Answer(prompt, said.removesuffix(ends), ends, follows)

    def _answered(self, messages: Messages, turn: Message, tools: Tools, around: _Around) -> str:
        """All that is written of an answer after what the prompt has begun it with."""
        begun, before, ended = around
        whole = self._asked(messages, tools, turn)
        opened, said = self._opened(begun), whole.removeprefix(begun)
        if opened and not (whole.startswith(begun) and opened.goes_on(said, turn)):
            return self._within(opened, begun, messages, turn, tools, before)
        if whole.startswith(begun):
            return _without_empty_block(said, before.removeprefix(begun))
        role = _HALF_TAG.sub("", _common(begun, before))
        lead = before.removeprefix(role)
        said = whole.removeprefix(role) if whole.startswith(role) else turn["content"] + ended
        said = said.removeprefix(lead) if begun.endswith(lead) else said
        own = begun.removeprefix(role).strip()
        if "reasoning_content" in turn and _HALF_TAG.sub("", _common(own, said.lstrip())):
            raise _thinks_twice(own, turn)
        if own and own in said.removesuffix(ended):
            raise UserError(f"{self.name} writes {own[:40]!r} after an answer, too; use another template")
        return said

    def _opened(self, begun: str) -> Block | None:
        return Block.opened(begun, self.source)

    def _asked(self, messages: Messages, tools: Tools, *turns: Message) -> str:
        """What is written after the last of the messages: up to the student's words, or the turns that follow.

        An answer changes what some templates write of the question (Mistral: the system turn, the tools), so only what
        is behind it can be compared.
        """
        mark = _fresh(_ASKED, (*messages, *turns))
        asked = {**messages[-1], "content": messages[-1]["content"] + mark}
        text = self.write([*messages[:-1], asked, *turns], tools, generate=not turns)
        return text.rpartition(mark)[2]

    def bridge(self, messages: Messages, replies: Messages, tools: Tools) -> Bridge:
        """What comes between an answer to the messages and the next one; UserError where a reply is not in it.

        Some templates write a tool's reply only after a turn that called one, so where there are such replies that is
        tried first, whatever the student's own turn was.
        """
        problem: UserError | None = None
        for calls in (True, False) if any(t["role"] == "tool" for t in (*messages, *replies)) else (False,):
            try:
                return self._bridge([*messages, _said(MARK)], replies, tools, calls)
            except UserError as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def _bridge(self, before: Messages, replies: Messages, tools: Tools, calls: bool) -> Bridge:
        mark = _fresh(MARK, (*before[:-1], *replies))
        turns = [*before[:-1], _said(mark), *replies]
        turns = with_calls(turns, mark) if calls else turns
        ended, follows = self.write(turns[: len(before)], tools), self.write(turns, tools, generate=True)
        if not self.chat:
            return Bridge(ended.rpartition(mark)[2], follows.rpartition(mark)[2], called=False)
        if mark not in ended or mark not in follows:
            if calls:  # it does not write calls
                return self._bridge(before, replies, tools, calls=False)
            raise UserError(f"{self.name} leaves out an answer; use another template")
        ended, follows = ended.rpartition(mark)[2], follows.rpartition(mark)[2]
        if not surely_in(replies, follows):
            marks = Marks()
            turns_of_marks = [*turns[: len(before)], *marks.turns(replies)]
            marks.check(self.write(turns_of_marks, tools, generate=True), self.name)
        called = "tool_calls" in turns[len(before) - 1]
        if called and not follows.startswith(ended.rstrip()):
            raise UserError(f"{self.name} writes a call otherwise once it is replied to; use another template")
        return Bridge(ended, follows, called)

    def _within(self, opened: Block, begun: str, messages: Messages, turn: Message, tools: Tools, before: str) -> str:
        """An answer's text in a block for thoughts that the prompt has opened."""
        role = begun[: opened.start]
        thoughts, words = parted(turn, opened)
        if thoughts is None or "reasoning_content" in turn:
            closing = self._between(messages, tools, opened) or opened.closing(before.removeprefix(role))
            thoughts = (thoughts or "") + closing
        bare = {k: v for k, v in turn.items() if k != "reasoning_content"} | {"content": words}
        rest = self._asked(messages, tools, bare)
        return thoughts + (opened.outside(rest.removeprefix(role)) if rest.startswith(role) else words)

    def _between(self, messages: Messages, tools: Tools, block: Block) -> str:
        """What is written between an answer's thoughts and its words; empty where thoughts are not written."""
        thought, said = MARK * 2, MARK * 3
        turn = {"role": "assistant", "content": f"a{said}", "reasoning_content": f"{thought}a"}
        found = re.search(f"{thought}a(.*)a{said}", self.write([*messages, turn], tools), re.DOTALL)
        return found[1] if found and block.closes in found[1] else ""

    def _after_answer(self, messages: Messages, turn: Message, tools: Tools, ended: str) -> str:
        """What is written after an answer when a turn follows: a tool's after a call, else the user's."""
        try:
            if not turn.get("tool_calls"):
                return self.bridge(messages, [{"role": "user", "content": "a"}], tools).follows.removeprefix(ended)
            whole = self.write([*messages, turn], tools)
            more = self.write(with_replies([*messages, turn]), tools, generate=True)
        except UserError:  # it takes no further turn
            return ""
        return more.removeprefix(whole) if more.startswith(whole) else ""

    def _check_answer(self, turn: Message, begun: str, text: str, marks: Marks, marked: str) -> None:
        """UserError where a part of an answer's turn is not in what was written of it, or is there twice."""
        closed, content = Block.closed(begun), turn["content"].lstrip()
        if closed and ("reasoning_content" in turn or content.startswith(closed.opens)):
            raise _thinks_twice(closed.closes, turn)
        if opened := self._opened(begun):
            content = content.removeprefix(opened.opens).lstrip()
        missing = None if _is_in(content, text) else f"its text {content[:40]!r}"
        if missing := missing or marks.missing(marked):
            raise UserError(
                f"{self.name} leaves out of a completion: {missing}; write it into the completion's text as the "
                "model is to write it, or take it out"
            )


def _thinks_twice(end: str, turn: Message) -> UserError:
    """The prompt has ended what is thought, and an answer has thoughts."""
    begins = turn.get("reasoning_content", turn["content"].lstrip())[:40]
    return UserError(
        f"the prompt ends with {end[-40:]!r}, and the completion has thoughts of its own: begins {begins!r}; let the "
        "template think (template_kwargs: enable_thinking) or take them out"
    )


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _first_line(problem: Exception | None) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]


def _common(one: str, other: str) -> str:
    """What two texts begin with."""
    return "".join(a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _fresh(mark: str, turns: Messages) -> str:
    """A mark that no turn has."""
    while any(mark in turn["content"] for turn in turns):
        mark += mark
    return mark


def _without_empty_block(said: str, lead: str) -> str:
    """An answer that opens with thoughts, without the empty block that the template has put before them."""
    block = Block.closed(lead)
    return said.removeprefix(lead) if block and said.removeprefix(lead).startswith(block.opens) else said


def _is_in(part: str, text: str) -> bool:
    """Whether a part of a turn is in a text, apart from white space."""
    return "".join(part.split()) in "".join(text.split())
