"""`opd sample`: let a model answer a few prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from opd.commands.chat.compared import answers, judge_of, model_of
from opd.commands.eval.measure import AsTeacher, engine_of
from opd.commands.subject import Subject, checkpoint_weights, warn_of_base
from opd.console import Console
from opd.console.beside import Answer
from opd.data.prompts import PromptStream
from opd.devices.shortage import during
from opd.hints import shown
from opd.models.loading import stop_ids, tokenizer_of
from opd.seeds import derive
from opd.sources.teacher import as_read
from opd.text.chat import decode
from opd.types import Prompt, Rollout, Sampling, UserError


@dataclass(frozen=True)
class Request:
    """What is to be completed, and how."""

    prompts: Sequence[str] | None = None
    """None: three of the run's own data, held-out where there are such."""
    n: int = 1
    """Completions of each."""
    temperature: float = 1.0
    max_tokens: int | None = None
    """None: that of training."""

    def of(self, subject: Subject, tokenizer: Any) -> tuple[PromptStream, list[Prompt], Sampling]:
        """What a model is asked, and how answers are drawn; UserError for what cannot be."""
        for name, kind, least in (("n", Integral, 1), ("temperature", Real, 0), ("max_tokens", Integral, 1)):
            value = getattr(self, name)
            if name == "max_tokens" and value is None:
                continue
            known = isinstance(value, kind)
            if not known or not value >= least:
                whole = "a whole number" if kind is Integral else "a number"
                raise UserError(f"{name}={shown(value)}: allowed is {whole} from {least}")
        for text in () if self.prompts is None else self.prompts:
            if not isinstance(text, str):
                raise UserError(f"prompts: {shown(text)}: allowed are texts, each of which is one prompt")
        cfg = subject.config
        data = cfg.data.start(tokenizer, derive(cfg.seed, "data"), train=False)
        asked = data.some_prompts(3) if self.prompts is None else [data.prompt_of(text) for text in self.prompts]
        if not asked:
            raise UserError("prompts: there is none; give one at least, or leave them out")
        if not all(p.tokens for p in asked):
            raise UserError("-p: the prompt is empty; at least one token is needed")
        drawn = Sampling(
            max_tokens=self.max_tokens or cfg.sampling.max_tokens, n=self.n, temperature=self.temperature,
            stop=stop_ids(subject.base, tokenizer), seed=derive(cfg.seed, "sample"),
        )  # fmt: skip
        return data, asked, drawn


def sample_texts(subject: Subject, console: Console, request: Request) -> list[dict[str, Any]]:
    """What a model writes; `n` records of each prompt."""
    cfg, tokenizer = subject.config, tokenizer_of(subject.base)
    asked, drawn = request.of(subject, tokenizer)[1:]
    with engine_of(cfg, subject.base, console, longest(asked, drawn)) as engine:
        if subject.checkpoint:
            engine.load_weights(checkpoint_weights(cfg, subject.checkpoint.model), version=subject.checkpoint.step)
        with during("generate"):
            rollouts = engine.sample(asked, drawn)
    return [
        {
            "prompt": r.prompt.example.messages[-1]["content"],
            "completion": decode(tokenizer, r.tokens),
            "tokens": len(r.tokens),
            "truncated": r.truncated,
        }
        for r in rollouts
    ]


def compare_texts(subject: Subject, console: Console, request: Request) -> list[tuple[str, list[Answer]]]:
    """The same of the student before and after, and of the teacher, judged by it; one engine after the other.

    Returns:
        Each prompt as often as it is completed, with everybody's answer.
    """
    cfg, tokenizer = subject.config, tokenizer_of(subject.base)
    data, asked, drawn = request.of(subject, tokenizer)
    warn_of_base(subject, console)
    by_model: dict[str, list[Rollout]] = {}
    with ExitStack() as stack:
        teacher = judge_of(subject, data, tokenizer, stack)
        with engine_of(cfg, subject.base, console, longest(asked, drawn)) as engine, during("generate"):
            by_model["student before" if subject.checkpoint else subject.label] = engine.sample(asked, drawn)
            if subject.checkpoint:
                weights = checkpoint_weights(cfg, subject.checkpoint.model)
                engine.load_weights(weights, version=subject.checkpoint.step)
                by_model[subject.label] = engine.sample(asked, drawn)
        if model := model_of(cfg, console.warn):
            read = as_read(teacher.read, asked)
            with engine_of(cfg, model, console, longest(read, drawn)) as engine, during("generate"):
                by_model["teacher"] = AsTeacher(engine, teacher).sample(asked, drawn)
        told = {name: answers(tokenizer, teacher, [(name, r) for r in rollouts]) for name, rollouts in by_model.items()}
    texts = [p.example.messages[-1]["content"] for p in asked for _ in range(request.n)]
    return [(text, list(row)) for text, row in zip(texts, zip(*told.values(), strict=True), strict=True)]


def longest(asked: Sequence[Prompt], drawn: Sampling) -> int:
    """Tokens of the longest prompt with its completion."""
    return max(len(p.tokens) for p in asked) + drawn.max_tokens
