"""The student writes in turns, and the task answers: conversations with an environment, such as a tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from opd.devices.team import spread
from opd.seeds import derive
from opd.sources.student import ByStudent
from opd.text.chat import decode, reply_ids
from opd.text.verdict import verdict
from opd.types import Message, Prompt, Rollout, Sampling
from opd.writing import Desk, Environment, Writer

NAN = float("nan")


@dataclass(frozen=True)
class MultiTurn(ByStudent):
    """Conversations of the student with the example's task, where that is an `Environment`; else single completions.

    What the environment says is part of the completion, so that the student reads it, and is not trained. The whole
    conversation has `sampling.max_tokens`. Each turn goes on from the ids that were sampled: none is made again from
    text.
    """

    max_turns: Annotated[int, Field(ge=1)] = 4
    """Turns of the student at most; after the last one the environment is not asked."""

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
            finished = []
            for conversation, written in zip(chosen, self.desk.engine.sample(shown, drawn), strict=True):
                conversation.add(written.tokens, written.logprobs, True)
                conversation.version = written.version
                if not written.truncated:
                    conversation.turns += 1
                    finished.append(conversation)
                elif not conversation.room or len(written.tokens) < drawn.max_tokens:  # it repeated itself
                    conversation.close(truncated=True)
            answers = spread(self.desk.team, finished, lambda part: [self._replies(c) for c in part])
            for conversation, replies in zip(finished, answers, strict=True):
                self._go_on(conversation, replies, sampling)
            calls += 1
        rewards = spread(self.desk.team, all_, lambda part: [self._reward(c) for c in part])
        return [_rollout(c, reward) for c, reward in zip(all_, rewards, strict=True)]

    def _replies(self, c: Conversation) -> Sequence[Message] | None:
        """What the environment says to a finished turn; None where the conversation is over."""
        task = self.desk.task(c.prompt.example)
        if not isinstance(task, Environment) or c.turns >= self.max_turns:
            return None
        return task.reply(c.prompt.example, [*c.messages, self._last_turn(c)])

    def _go_on(self, c: Conversation, replies: Sequence[Message] | None, sampling: Sampling) -> None:
        """Put the replies behind a finished turn, or end the conversation."""
        example, said = c.prompt.example, self._last_turn(c)
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
        c.add(ids, [NAN] * len(ids), False)
        c.begun = len(c.tokens)

    def _reward(self, c: Conversation) -> float | None:
        """What an environment gives for the last turn; None leaves it to the task's verifier."""
        task = self.desk.task(c.prompt.example)
        judged = isinstance(task, Environment)
        return verdict(task, c.prompt.example, self._last_turn(c)["content"]) if judged else None

    def _last_turn(self, c: Conversation) -> Message:
        return {"role": "assistant", "content": decode(self.desk.tokenizer, c.tokens[c.begun :])}


def _rollout(c: Conversation, reward: float | None) -> Rollout:
    """The conversation as a completion."""
    return Rollout(
        c.prompt, tuple(c.tokens), tuple(c.logprobs), c.truncated, c.version, trained=tuple(c.trained), reward=reward
    )


def _next(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Choose who writes next: those with at least half as much room as the widest.

    An engine bounds all completions of a call alike, and a long conversation should not cut the others short. Whoever
    does not finish within the least room of the chosen goes on in a later call, of which there are therefore few.
    """
    widest = max((c.room for c in conversations if c.open), default=0)
    return [c for c in conversations if c.open and 2 * c.room >= widest]
