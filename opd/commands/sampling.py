"""`opd sample`: let a model answer a few prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opd.commands.evaluate import engine_of
from opd.commands.subject import Subject, checkpoint_weights
from opd.console import Console
from opd.devices.shortage import during
from opd.models.loading import stop_ids, tokenizer_of
from opd.seeds import derive
from opd.types import Sampling, UserError


def sample_texts(
    subject: Subject,
    console: Console,
    prompts: Sequence[str] | None,
    n: int,
    temperature: float,
    max_tokens: int | None,
) -> list[dict[str, Any]]:
    """Complete the given prompts, or three of the run's own data, held-out where there are such; `n` records each."""
    for name, value, least in (("n", n, 1), ("temperature", temperature, 0), ("max_tokens", max_tokens, 1)):
        if value is not None and not value >= least:
            raise UserError(f"{name}={value}: allowed is from {least}")
    cfg = subject.config
    tokenizer = tokenizer_of(subject.base)
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
    max_len = max(len(p.tokens) for p in asked) + drawn.max_tokens
    with engine_of(cfg, subject.base, console, max_len) as engine:
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
