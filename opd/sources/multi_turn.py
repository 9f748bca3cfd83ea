"""The student writes in turns, and the task answers: conversations with an environment, such as a tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from opd.protocols import Desk, Environment, Writer
from opd.seeds import derive
from opd.text.chat import decode, reply_ids
from opd.types import Message, Prompt, Rollout, Sampling


@dataclass(frozen=True)
class MultiTurn:
    """Conversations of the student with the example's task, where that is an `Environment`; else single completions.

    What the environment says is part of the completion, so that the student reads it, and is not trained. The whole
    conversation has `sampling.max_tokens`. Each turn goes on from the ids that were sampled: none is made again from
    text.
    """

    max_turns: Annotated[int, Field(ge=1)] = 4
    """Turns of the student at most; after the last one the environment is not asked."""

    @property
    def policy(self) -> bool:
        """Whether all trained tokens are the student's own: yes."""
        return True

    @property
    def origins(self) -> frozenset[str]:
        """Its only one."""
        return frozenset({"student"})

    def start(self, desk: Desk) -> Writer:
        """Use the run's engine."""
        return MultiTurnWriter(self.max_turns, desk)


@dataclass
class Conversation:
    """One that is being written."""

    prompt: Prompt
    room: int
    """Tokens that may still follow."""
    messages: list[Message]
    """What was said before the student's current turn."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    turns: int = 0
    """That the student has finished."""
    begun: int = 0
    """Where in `tokens` the current turn begins."""
    open: bool = True
    truncated: bool = False
    version: int = 0

    def add(self, tokens: Sequence[int], logprobs: Sequence[float], trained: bool) -> None:
        """Put tokens at the end."""
        self.tokens += tokens
        self.logprobs += logprobs
        self.trained += [trained] * len(tokens)
        self.room -= len(tokens)

    def close(self, truncated: bool) -> None:
        """End it; `truncated`: for want of room."""
        self.open, self.truncated = False, truncated


@dataclass(frozen=True)
class MultiTurnWriter:
    """Holds conversations with the run's engine."""

    max_turns: int
    desk: Desk

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Hold `n` conversations from each prompt, all of them together."""
        all_ = [
            Conversation(p, sampling.max_tokens, list(p.example.messages)) for p in prompts for _ in range(sampling.n)
        ]
        calls = 0
        while chosen := _next(all_):
            drawn = replace(
                sampling, n=1, max_tokens=min(c.room for c in chosen), seed=derive(sampling.seed, "turn", calls)
            )
            shown = [Prompt(c.prompt.example, (*c.prompt.tokens, *c.tokens)) for c in chosen]
            for conversation, written in zip(chosen, self.desk.engine.sample(shown, drawn), strict=True):
                conversation.add(written.tokens, written.logprobs, True)
                conversation.version = written.version
                if not written.truncated:
                    self._answer(conversation, sampling)
                elif not conversation.room:
                    conversation.close(truncated=True)
            calls += 1
        return [self._rollout(c) for c in all_]

    def _answer(self, c: Conversation, sampling: Sampling) -> None:
        """Let the environment answer a finished turn, or end the conversation."""
        example, said = c.prompt.example, self._last_turn(c)
        task = self.desk.task(example)
        c.turns += 1
        replies = None
        if isinstance(task, Environment) and c.turns < self.max_turns:
            replies = task.reply(example, [*c.messages, said])
        if not replies:
            c.close(truncated=False)
            return
        ids = reply_ids(
            self.desk.tokenizer, c.messages, replies, sampling.stop,
            last=c.tokens[-1] if c.tokens else None, tools=example.tools, **self.desk.rendering,
        )  # fmt: skip
        if len(ids) >= c.room:  # there would be no room to go on
            c.close(truncated=True)
            return
        c.messages += [said, *replies]
        c.add(ids, [0.0] * len(ids), False)
        c.begun = len(c.tokens)

    def _rollout(self, c: Conversation) -> Rollout:
        """The conversation as a completion; of an environment, judged by its last turn."""
        example = c.prompt.example
        task = self.desk.task(example)
        judged = isinstance(task, Environment)
        return Rollout(
            c.prompt, tuple(c.tokens), tuple(c.logprobs), c.truncated, c.version,
            trained=tuple(c.trained), reward=task.verify(example, self._last_turn(c)["content"]) if judged else None,
        )  # fmt: skip

    def _last_turn(self, c: Conversation) -> Message:
        return {"role": "assistant", "content": decode(self.desk.tokenizer, c.tokens[c.begun :])}


def _next(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Choose who writes next: those with at least half as much room as the widest.

    An engine bounds all completions of a call alike, and a long conversation should not cut the others short. Whoever
    does not finish within the least room of the chosen goes on in a later call, of which there are therefore few.
    """
    widest = max((c.room for c in conversations if c.open), default=0)
    return [c for c in conversations if c.open and 2 * c.room >= widest]
