"""How a teacher is shown a prompt: the student's ids, or the messages in its own words and template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from opd.text.chat import render_all, with_system, without_system
from opd.text.script import Template
from opd.types import Example, Message, Prompt, UserError

PLACE = re.compile(r"{(\w+)}")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Settings that every teacher has."""

    prompt: Literal["own", "student"] = "own"
    """`own`: it reads the messages through its own template; `student`: the student's prompt ids as they are."""
    system: Annotated[str | None, Field(min_length=0)] = None
    """System prompt of its own; None: the one that the prompt came with."""
    context: str | None = None
    """What its last user turn says instead of the prompt alone: `{prompt}` stands for that, `{answer}`, `{completion}`
    and the example's further columns for what the student is not shown. None: the prompt alone."""
    opening: str | None = None
    """What its template puts between a prompt and the words of an answer, which the student does not write: gpt-oss'
    `<|channel|>final<|message|>`. None: nothing."""
    template: Template = "auto"
    """`chat`: its tokenizer's chat template; `plain`: texts one after another; `auto`: the first, if there is one."""
    template_kwargs: Mapping[str, Any] | None = None
    """Passed to its chat template, such as `enable_thinking`; None: those of the data, as for the student."""

    def __post_init__(self) -> None:
        """Refuse settings of which one would be ignored."""
        if self.prompt == "student":
            for name in ("system", "context", "opening"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: it is not read with prompt=student; allowed is prompt=own")

    def check_template(self, tokenizer: Any, chat: bool) -> None:
        """Raise UserError where a teacher has no chat template, and nothing says how else it is to read chats.

        Args:
            tokenizer: Its own.
            chat: Whether the student is shown the prompts as chats.
        """
        plain = "teacher.template=plain, with which it reads the words of the turns alone"
        none = f"the teacher's tokenizer ({getattr(tokenizer, 'name_or_path', '') or 'its own'}) has no chat template"
        if self.prompt == "student" or tokenizer.chat_template:
            return
        if self.template == "chat":
            raise UserError(f"teacher.template=chat: {none}; allowed are teacher.prompt=student, and {plain}")
        if chat and self.template == "auto" and self.context is None:  # a context writes the prompt in words of its own
            raise UserError(
                f"teacher.template=auto: {none}, and the student is shown chats; set teacher.prompt=student, so that "
                f"it reads what the student does, or {plain}"
            )

    def read(self, tokenizer: Any, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt as the teacher sees it; samples of one prompt share them."""
        if self.prompt == "student":
            return [p.tokens for p in prompts]
        # By the object and not by its id: two questions of one id, as of a task that gives one twice, are two.
        examples = {id(p.example): p.example for p in prompts}
        rows = render_all(
            tokenizer,
            [self.messages(e) for e in examples.values()],
            [e.tools for e in examples.values()],
            template=self.template,
            template_kwargs=self.template_kwargs,
        )
        if self.opening is not None:
            opened = tokenizer(self.opening, add_special_tokens=False)["input_ids"]
            rows = [[*ids, *opened] for ids in rows]
        rendered = dict(zip(examples, rows, strict=True))
        if any(not ids for ids in rows):
            raise UserError("teacher.template renders an empty prompt; it needs at least one token, such as a BOS")
        return [rendered[id(p.example)] for p in prompts]

    def messages(self, example: Example) -> Sequence[Message]:
        """The conversation as the teacher sees it."""
        messages: Sequence[Message] = example.messages
        if self.system is not None:
            messages = with_system(without_system(messages), self.system)
        if self.context is None:
            return messages
        *before, last = messages
        known = {"answer": example.answer, "completion": example.completion, **example.meta, "prompt": last["content"]}

        def value(match: re.Match[str]) -> str:
            if match[1] not in known:
                raise UserError(
                    f"teacher.context: {{{match[1]}}} is no column of {example.name}; "
                    f"there are {', '.join(sorted(known))}"
                )
            found = known[match[1]]
            if found is None or found != found or not str(found).strip():  # NaN is how tables write that there is none
                raise UserError(
                    f"teacher.context: {{{match[1]}}} is empty in {example.name}; the teacher would know no more "
                    "than the student. Choose data that has it, or leave it out"
                )
            if isinstance(found, bool | list | tuple | Mapping):
                raise UserError(
                    f"teacher.context: {{{match[1]}}} is {repr(found)[:40]} in {example.name}; allowed is a text or a "
                    "number"
                )
            return str(found)

        return [*before, {**last, "content": PLACE.sub(value, self.context)}]


def rendering_notes(theirs: Sequence[Sequence[int]], prompts: Sequence[Prompt]) -> list[str]:
    """Say how many prompts a teacher reads otherwise than the student does."""
    other = sum(tuple(ids) != p.tokens for ids, p in zip(theirs, prompts, strict=True))
    return [f"the teacher renders {other} of {len(prompts)} prompts differently from the student"] if other else []
