"""`opd sample`: let a model answer a few prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from opd.commands.chat.compared import answers, judge_of, model_of
from opd.commands.eval.measure import AsTeacher, engine_of
from opd.commands.subject import Subject, checkpoint_weights
from opd.console import Console
from opd.console.beside import Answer
from opd.data.prompts import PromptStream
from opd.devices.shortage import during
from opd.models.loading import stop_ids, tokenizer_of
from opd.seeds import derive
from opd.sources.teacher import as_read
from opd.types import Prompt, Rollout, Sampling, UserError


def sample_texts(
    subject: Subject,
    console: Console,
    prompts: Sequence[str] | None,
    n: int,
    temperature: float,
    max_tokens: int | None,
) -> list[dict[str, Any]]:
    """Complete the given prompts, or three of the run's own data, held-out where there are such; `n` records each."""
    cfg, tokenizer = subject.config, tokenizer_of(subject.base)
    asked, drawn = request(subject, tokenizer, prompts, n, temperature, max_tokens)[1:]
    with engine_of(cfg, subject.base, console, longest(asked, drawn)) as engine:
        if subject.checkpoint:
            engine.load_weights(checkpoint_weights(cfg, subject.checkpoint.model), version=subject.checkpoint.step)
        with during("generate"):
            rollouts = engine.sample(asked, drawn)
    return [
        {
            "prompt": r.prompt.example.messages[-1]["content"],
            "completion": tokenizer.decode(r.tokens, skip_special_tokens=True),
            "tokens": len(r.tokens),
            "truncated": r.truncated,
        }
        for r in rollouts
    ]


def compare_texts(
    subject: Subject,
    console: Console,
    prompts: Sequence[str] | None,
    n: int,
    temperature: float,
    max_tokens: int | None,
) -> list[tuple[str, list[Answer]]]:
    """The same of the student before and after, and of the teacher, judged by it; one engine after the other.

    Returns:
        Each prompt as often as it is completed, with everybody's answer.
    """
    cfg, tokenizer = subject.config, tokenizer_of(subject.base)
    data, asked, drawn = request(subject, tokenizer, prompts, n, temperature, max_tokens)
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
            shown = as_read(teacher.read, asked)
            with engine_of(cfg, model, console, longest(shown, drawn)) as engine, during("generate"):
                by_model["teacher"] = AsTeacher(engine, teacher).sample(asked, drawn)
        told = {name: answers(tokenizer, teacher, [(name, r) for r in rollouts]) for name, rollouts in by_model.items()}
    texts = [p.example.messages[-1]["content"] for p in asked for _ in range(n)]
    return [(text, list(row)) for text, row in zip(texts, zip(*told.values(), strict=True), strict=True)]


def request(
    subject: Subject, tokenizer: Any, prompts: Sequence[str] | None, n: int, temperature: float, max_tokens: int | None
) -> tuple[PromptStream, list[Prompt], Sampling]:
    """What is asked, and how answers are drawn; UserError for what cannot be."""
    for name, value, least in (("n", n, 1), ("temperature", temperature, 0), ("max_tokens", max_tokens, 1)):
        if value is not None and not value >= least:
            raise UserError(f"{name}={value}: allowed is from {least}")
    cfg = subject.config
    data = cfg.data.start(tokenizer, derive(cfg.seed, "data"), train=False)
    asked = [data.prompt_of(text) for text in prompts] if prompts is not None else data.some_prompts(3)
    if not asked:
        raise UserError("prompts: there is none; give one at least, or leave them out")
    if not all(p.tokens for p in asked):
        raise UserError("-p: the prompt is empty; at least one token is needed")
    drawn = Sampling(
        max_tokens=max_tokens or cfg.sampling.max_tokens, n=n, temperature=temperature,
        stop=stop_ids(subject.base, tokenizer), seed=derive(cfg.seed, "sample"),
    )  # fmt: skip
    return data, asked, drawn


def longest(asked: Sequence[Prompt], drawn: Sampling) -> int:
    """Tokens of the longest prompt with its completion."""
    return max(len(p.tokens) for p in asked) + drawn.max_tokens
