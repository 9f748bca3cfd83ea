"""Whether what was exported is the learner's model: its log-probs, read back by programs that will use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from opd.commands.eval.measure import engine_of
from opd.commands.export.formats import Written, read_back
from opd.commands.export.llamacpp import LlamaCpp, there
from opd.commands.export.order import Order
from opd.commands.subject import Subject, checkpoint_weights
from opd.console import Console
from opd.data.prompts import PromptStream
from opd.devices.compute import dtype_name
from opd.models.facts import read_facts
from opd.models.heads import split_model
from opd.models.loading import stop_ids, tokenizer_of
from opd.models.scoring import score_sequences
from opd.rollout.hf import Hf, HfSampler
from opd.seeds import derive
from opd.text.chat import decode
from opd.types import Prompt, RunError, Sampling
from opd.writing import Writer

TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2, "q8_0": 0.2, "int8": 0.2, "int4": 1.5}
"""Largest mean |log-prob of the export - of the learner in float32|, nats per token: the rounding of what it is in.

In 8 and 4 bits that is noise which shows, and a figure to look at: SmolLM2-135M is 0.05 off in q8_0, and 0.09 in
llama.cpp, which rounds what goes into a layer, too; 0.08 in int8, 0.8 in int4."""
PROMPTS, TOKENS = 16, 48


@dataclass(frozen=True)
class Parity:
    """How far the exported model is from the learner, in mean absolute nats per token."""

    transformers: float
    engine: float | None
    """None where no engine but transformers has read it."""
    engine_name: str
    tokens: int
    tolerance: float
    engine_tolerance: float

    @property
    def ok(self) -> bool:
        """Whether both are within what rounding explains; NaN is not."""
        return self.transformers <= self.tolerance and (self.engine is None or self.engine <= self.engine_tolerance)

    def __str__(self) -> str:
        """Both figures, with what is allowed."""
        engine = self.engine
        named = "" if engine is None else f", {self.engine_name} {engine:.2g}"
        allowed = "" if engine is None else f", {self.engine_tolerance:g}"
        return (
            f"transformers {self.transformers:.2g}{named} nats a token from the learner (allowed "
            f"{self.tolerance:g}{allowed})"
        )


def check_parity(subject: Subject, learner: Any, written: Written, console: Console) -> Parity:
    """Load the export afresh, let an engine write with it, and compare both with the learner on those tokens.

    Raises:
        RunError: A GGUF file cuts the prompts into other tokens.
    """
    cfg, exported = subject.config, written.readable(subject)
    tokenizer = tokenizer_of(exported)
    data: PromptStream = cfg.data.start(tokenizer, derive(cfg.seed, "data"))
    drawn = Sampling(
        max_tokens=min(TOKENS, cfg.sampling.max_tokens), stop=stop_ids(exported, tokenizer), n=2,
        seed=derive(cfg.seed, "export"),
    )  # fmt: skip
    prompts: list[Prompt] = data.some_prompts(PROMPTS)
    with _engine(subject, written, console) as (engine, name):
        rollouts = engine.sample(prompts, drawn)
        if isinstance(engine, LlamaCpp):
            _check_tokens(engine, tokenizer, prompts)
    sequences = [(r.prompt.tokens, r.tokens) for r in rollouts]
    with console.task("parity"), torch.no_grad():
        ours = score_sequences(split_model(learner), sequences)
        theirs = score_sequences(split_model(read_back(subject, written)), sequences)
    return Parity(
        transformers=mean_gap(ours, theirs),
        engine=mean_gap(ours, [list(r.logprobs) for r in rollouts]) if name else None,
        engine_name=name,
        tokens=sum(len(r.tokens) for r in rollouts),
        tolerance=_tolerance(subject, written),
        engine_tolerance=engine_tolerance(written.order, getattr(cfg.rollout, "dtype", written.order.dtype)),
    )


@contextmanager
def _engine(subject: Subject, written: Written, console: Console) -> Iterator[tuple[Writer, str]]:
    """What writes with the export, and its name; without one where it is but what was read back in transformers.

    vLLM reads 8 bits of torchao, and no longer 4 of bitsandbytes.
    """
    cfg, order = subject.config, written.order
    if order.format == "gguf" and there():
        engine = LlamaCpp(written.file, cfg.longest, cfg.threads)
        try:
            yield engine, "llama.cpp"
        finally:
            engine.close()
    elif order.format == "gguf" or order.quantize == "int4":
        fresh, own = read_back(subject, written), Hf()
        yield HfSampler(fresh, read_facts(subject.base), cfg.longest, own.batch_size, own.score_tokens), ""
    else:
        model = subject.base if order.adapter else written.readable(subject)
        with engine_of(cfg, model, console) as sampler:
            if order.adapter:  # the engine gets the adapter merged, as in training
                sampler.load_weights(checkpoint_weights(cfg, written.folder), version=0)
            yield sampler, type(cfg.rollout).__name__


def _check_tokens(engine: LlamaCpp, tokenizer: Any, prompts: Sequence[Prompt]) -> None:
    """RunError where llama.cpp reads other tokens in the text of a prompt."""
    for prompt in prompts:
        text = decode(tokenizer, prompt.tokens, special=True)
        ours, theirs = tokenizer(text, add_special_tokens=False)["input_ids"], engine.tokens(text)
        if ours != theirs:
            raise RunError(
                f"the export's tokenizer is another one in llama.cpp: {text[:60]!r} is {len(ours)} tokens, and there "
                f"{len(theirs)}, or others; nothing was exported; leave --format gguf out"
            )


def _tolerance(subject: Subject, written: Written) -> float:
    student = subject.config.student
    adapted = TOLERANCE[dtype_name(student.dtype, student.device)] if written.order.adapter else 0.0
    return max(TOLERANCE[written.order.kind], adapted)


def engine_tolerance(order: Order, computed: str) -> float:
    """The coarser of what the export is in and what the run's engine computes in; llama.cpp goes by the file."""
    return max(TOLERANCE[order.kind], 0.0 if order.format == "gguf" else TOLERANCE[dtype_name(computed)])


def mean_gap(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Mean |difference| over all tokens, nats; 0 without tokens."""
    gaps = [abs(x - y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True)]
    return sum(gaps) / len(gaps) if gaps else 0.0
