"""`opd chat`: models that answer a person, word by word, each conversation in the words that the run's prompts have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from opd.commands.chat.compared import answers, judge_of, model_of
from opd.commands.subject import Subject, checkpoint_weights, warn_of_base
from opd.console import Console
from opd.console.beside import Answer
from opd.data.prompts import PromptStream
from opd.models.facts import context
from opd.models.loading import load_config, stop_ids, tokenizer_of
from opd.rollout.hf import Hf, HfSampler
from opd.seeds import derive
from opd.sources.teacher import as_read
from opd.teaching import Scorer
from opd.text.script import Script
from opd.text.speech import Speech
from opd.types import Message, Pretrained, Prompt, Rollout, Sampling, UserError

UNBOUNDED = 2**20
"""Tokens that a model reads whose config names no limit."""
Told = Callable[[str, str], None]
"""Is handed the name of who writes, and what comes next of its text."""


@dataclass(frozen=True)
class Voice:
    """A model that answers."""

    name: str
    engine: HfSampler
    longest: int
    """Tokens that it reads and writes at most."""
    read: Callable[[Sequence[Prompt]], list[Sequence[int]]]
    """Each prompt as it is shown it."""

    def answer(self, prompt: Prompt, drawn: Sampling, told: Callable[[int], None]) -> Rollout:
        """Write on, as long as there is room; UserError where there is none."""
        (shown,) = as_read(self.read, [prompt])
        room = self.longest - len(shown.tokens)
        if room < 1:
            raise UserError(
                f"the conversation has {len(shown.tokens)} tokens, and {self.name} reads at most {self.longest}; begin "
                "a new one with /reset"
            )
        limited = replace(drawn, max_tokens=min(drawn.max_tokens, room))
        return replace(self.engine.write(shown, limited, told), prompt=prompt)


@dataclass(frozen=True)
class Voices:
    """Those that answer, and the teacher that judges what they say where it was asked for."""

    voices: tuple[Voice, ...]
    main: str
    """Whose answers the conversation goes on with."""
    teacher: Scorer | None
    data: PromptStream
    tokenizer: Any
    drawn: Sampling

    @property
    def remembers(self) -> bool:
        """Whether there are turns: without a chat template each prompt is completed by itself."""
        return Script(self.tokenizer, **self.data.rendering).chat

    def answer(self, messages: Sequence[Message], told: Told = lambda name, text: None) -> list[Answer]:
        """Have each answer a conversation, one after the other; the same conversation is answered alike."""
        prompt = self.data.prompt_in(messages if self.remembers else messages[-1:])
        if not prompt.tokens:
            raise UserError("the prompt is empty; at least one token is needed")
        drawn = replace(self.drawn, seed=derive(self.drawn.seed, "turn", len(messages)))
        written = []
        for voice in self.voices:
            speech = Speech(self.tokenizer)

            def heard(token: int, name: str = voice.name, speech: Speech = speech) -> None:
                told(name, speech.add(token))

            written.append((voice.name, voice.answer(prompt, drawn, heard)))
            told(voice.name, speech.rest())
        return answers(self.tokenizer, self.teacher, written)


def start_voices(
    subject: Subject, console: Console, stack: ExitStack, *, compare: bool, temperature: float | None,
    max_tokens: int | None,
) -> Voices:  # fmt: skip
    """Load who answers: the subject alone, or with `compare` what it was before, and its teacher, too.

    Raises:
        UserError: a model cannot be had, or the teacher cannot be asked about tokens.
    """
    cfg, checkpoint = subject.config, subject.checkpoint
    tokenizer = tokenizer_of(subject.base)
    data = cfg.data.start(tokenizer, derive(cfg.seed, "data"), train=False)
    own = cfg.sampling
    drawn = Sampling(
        max_tokens=max_tokens or own.max_tokens, temperature=own.temperature if temperature is None else temperature,
        stop=stop_ids(subject.base, tokenizer), seed=derive(cfg.seed, "chat"),
    )  # fmt: skip
    settings = Hf(dtype=cfg.student.dtype, device=cfg.student.device)
    teacher = None
    if compare:
        warn_of_base(subject, console)
        with console.task("teacher"):
            teacher = judge_of(subject, data, tokenizer, stack)

    def voice(name: str, model: Pretrained, read: Callable[[Sequence[Prompt]], list[Sequence[int]]]) -> Voice:
        longest = context(load_config(model)) or UNBOUNDED
        with console.task(name):
            engine = settings.start(model, max_len=longest, seed=0)
        stack.callback(engine.close)
        return Voice(name, engine, longest, read)

    def as_it_is(prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        return [p.tokens for p in prompts]

    found = [voice("student before", subject.base, as_it_is)] if compare and checkpoint else []
    found.append(voice(subject.label, subject.base, as_it_is))
    if checkpoint:
        found[-1].engine.load_weights(checkpoint_weights(cfg, checkpoint.model), version=checkpoint.step)
    if teacher is not None and (model := model_of(cfg, console.warn)):
        found.append(voice("teacher", model, teacher.read))
    return Voices(tuple(found), subject.label, teacher, data, tokenizer, drawn)
