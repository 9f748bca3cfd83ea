"""`opd export`: a Hugging Face checkpoint of a run, checked to be the learner's model before it gets its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from opd.commands import card
from opd.commands.evaluate import engine_of
from opd.commands.subject import Subject, checkpoint_weights, load_adapter
from opd.console import Console
from opd.data.prompts import PromptStream
from opd.devices.compute import dtype_name
from opd.disk import writing
from opd.learner.lora import merged_weights
from opd.models.heads import split_model
from opd.models.loading import load_causal_lm, stop_ids, tokenizer_of
from opd.models.naming import remade
from opd.models.scoring import score_sequences
from opd.places import real, share
from opd.seeds import derive
from opd.types import Pretrained, Prompt, RunError, Sampling, UserError

TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest mean |log-prob of the export - of the learner in float32|, nats per token: the rounding of the dtype."""
PROMPTS, TOKENS = 16, 48
WRITTEN = ("config.json", "generation_config.json", "README.md", "model.safetensors", "model.safetensors.index.json",
           "model-*-of-*.safetensors", "adapter_config.json", "adapter_model.safetensors")  # fmt: skip
"""Patterns of the files that an export writes beside the tokenizer's, and may replace."""
DRAFT = ".writing"


@dataclass(frozen=True)
class Parity:
    """How far the exported model is from the learner, in mean absolute nats per token."""

    transformers: float
    engine: float
    engine_name: str
    tokens: int
    tolerance: float
    engine_tolerance: float

    @property
    def ok(self) -> bool:
        """Whether both are within what rounding explains; NaN is not."""
        return self.transformers <= self.tolerance and self.engine <= self.engine_tolerance


def export_run(
    subject: Subject, console: Console, *, out: Path | None = None, dtype: str = "bfloat16", adapter: bool = False
) -> dict[str, Any]:
    """Write the checkpoint as safetensors with tokenizer, chat template, generation config and model card.

    Returns:
        The folder, the parity figures and the step.

    Raises:
        UserError: an unknown dtype, an adapter of a run without one, a folder that is not empty, cannot be made, or
            holds other files than an export's.
        RunError: the parity check failed; nothing is left behind.
    """
    assert subject.run is not None and subject.checkpoint is not None
    name = subject.checkpoint.path.name + ("-adapter" if adapter else "")
    asked = subject.run.path / "export" / name if out is None else out
    final = real(asked)
    try:
        _refuse(subject, final, dtype, adapter, explicit=out is not None)
        temporary = _draft(final, inside=out is not None and final.is_dir())
    except OSError as e:
        raise UserError(f"--out={asked}: nothing can be written there ({e.strerror}); name another folder") from e
    try:
        with console.task("write"):
            learner = _learner(subject)
            with writing(final):
                _write(subject, learner, temporary, getattr(torch, dtype), adapter)
        parity = check_parity(subject, learner, temporary, console, dtype, adapter)
        if not parity.ok:
            raise RunError(
                f"the export is not the learner's model: {parity.transformers:.2g} nats a token off in transformers "
                f"(allowed {parity.tolerance:g}), {parity.engine:.2g} in {parity.engine_name} (allowed "
                f"{parity.engine_tolerance:g}); nothing was exported; try --dtype float32"
            )
        with writing(final):
            (temporary / "README.md").write_text(card.write(subject, vars(parity), dtype, adapter), encoding="utf-8")
            share(temporary, like=temporary / "README.md")
            _put(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    console.say(
        f"parity over {parity.tokens} tokens: transformers {parity.transformers:.2g}, {parity.engine_name} "
        f"{parity.engine:.2g} nats a token from the learner (allowed {parity.tolerance:g}, {parity.engine_tolerance:g})"
    )
    card.summary(subject.run, console)
    return {"path": str(final), "step": subject.checkpoint.step, "dtype": dtype, "parity": vars(parity)}


def check_parity(subject: Subject, learner: Any, folder: Path, console: Console, dtype: str, adapter: bool) -> Parity:
    """Load the export afresh, sample with the engine, and compare both with the learner on those tokens."""
    cfg = subject.config
    exported = replace(subject.base, path=str(folder))
    tokenizer = tokenizer_of(exported)
    data: PromptStream = cfg.data.start(tokenizer, derive(cfg.seed, "data"))
    drawn = Sampling(
        max_tokens=min(TOKENS, cfg.sampling.max_tokens), stop=stop_ids(exported, tokenizer),
        seed=derive(cfg.seed, "export"),
    )  # fmt: skip
    prompts: list[Prompt] = data.some_prompts(PROMPTS)
    with engine_of(cfg, subject.base if adapter else exported, console) as engine:
        if adapter:  # the engine gets the adapter merged, as in training
            engine.load_weights(checkpoint_weights(cfg, folder), version=0)
        rollouts = engine.sample(prompts, replace(drawn, n=2))
    sequences = [(r.prompt.tokens, r.tokens) for r in rollouts]
    with console.task("parity"), torch.no_grad():
        ours = score_sequences(split_model(learner), sequences)
        fresh = load_adapter(cfg, folder) if adapter else _fresh(exported, dtype)
        theirs = score_sequences(split_model(fresh.eval()), sequences)
    return Parity(
        transformers=mean_gap(ours, theirs),
        engine=mean_gap(ours, [list(r.logprobs) for r in rollouts]),
        engine_name=type(cfg.rollout).__name__,
        tokens=sum(len(r.tokens) for r in rollouts),
        tolerance=max(
            TOLERANCE[dtype], TOLERANCE[dtype_name(cfg.student.dtype, cfg.student.device)] if adapter else 0.0
        ),
        engine_tolerance=engine_tolerance(dtype, getattr(cfg.rollout, "dtype", dtype)),
    )


def engine_tolerance(dtype: str, computed: str) -> float:
    """The coarser of what the export is in and what an engine computes in."""
    return max(TOLERANCE[dtype], TOLERANCE[dtype_name(computed)])


def mean_gap(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Mean |difference| over all tokens, nats; 0 without tokens."""
    gaps = [abs(x - y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True)]
    return sum(gaps) / len(gaps) if gaps else 0.0


def _refuse(subject: Subject, final: Path, dtype: str, adapter: bool, *, explicit: bool) -> None:
    if dtype not in TOLERANCE:
        raise UserError(f"--dtype={dtype}: allowed are {', '.join(TOLERANCE)}")
    if adapter and subject.config.student.lora is None:
        raise UserError("--adapter: this run trained all weights, it has no adapter; leave --adapter out")
    if os.path.lexists(final) and not final.is_dir():
        raise UserError(f"--out={final}: this is no folder, allowed is a new or an empty one")
    assert subject.checkpoint is not None
    there = {p.name for p in final.iterdir()} - {DRAFT} if final.is_dir() else set()
    if explicit and there:
        raise UserError(f"--out={final}: the folder is not empty")
    own = {p.name for p in subject.checkpoint.model.iterdir()}  # among them what the tokenizer is kept in
    if other := sorted(n for n in there - own if not any(fnmatch(n, pattern) for pattern in WRITTEN)):
        raise UserError(
            f"{final}: an export would replace this folder, and {', '.join(other[:5])} in it is not of one; "
            "move it elsewhere, or name another folder by --out"
        )


def _draft(final: Path, *, inside: bool) -> Path:
    """Make the folder that the export is written to before it gets its name; OSError where that cannot be.

    It lies inside of a folder that a person has made, which may be where they are, or another disk.
    """
    draft = final / DRAFT if inside else final.with_name(f".{final.name}{DRAFT}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def _put(temporary: Path, final: Path) -> None:
    """Give what is written its place."""
    if temporary.parent == final:
        for path in temporary.iterdir():
            path.rename(final / path.name)
    else:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)


def _learner(subject: Subject) -> Any:
    """The learner's model in float32 on the CPU, an adapter on its base as in training."""
    cfg = subject.config
    assert subject.checkpoint is not None
    folder = subject.checkpoint.model
    if cfg.student.lora is not None:
        return load_adapter(cfg, folder).float().eval()
    return _fresh(subject.trained, "float32")


def _fresh(model: Pretrained, dtype: str) -> Any:
    return load_causal_lm(model, getattr(torch, dtype), device=torch.device("cpu")).eval()


def _write(subject: Subject, learner: Any, folder: Path, dtype: torch.dtype, adapter: bool) -> None:
    tokenizer = tokenizer_of(subject.base)
    if adapter:
        learner.save_pretrained(folder)
    else:
        inner = learner.get_base_model() if hasattr(learner, "peft_config") else learner
        model = remade(inner, merged_weights(learner)).to(dtype)
        model.generation_config.eos_token_id = list(stop_ids(subject.base, tokenizer))
        if model.generation_config.pad_token_id is None:
            model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
