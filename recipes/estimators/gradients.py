"""Gradients of several estimators on the same completions, without a step: how far is one batch from the mean?"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from opd.batch import to_batch
from opd.config.compose import load
from opd.config.settings import Config
from opd.console import make_console
from opd.evaluation.evaluate import evaluate
from opd.needs import Needs
from opd.parts import Parts, make_models, sampling, start_parts
from opd.protocols import Objective
from opd.seeds import derive
from opd.tensors import Batch
from opd.types import Scored


def take(conf: str, methods: Mapping[str, Sequence[str]], exact: str, sets: int) -> dict[str, Any]:
    """Take every method's gradient on each of `sets` completions of one step's prompts; the teacher's accuracy too.

    Args:
        conf: the config of all of them.
        methods: settings of each, of which only the objective is used.
        exact: which of them is the exact one, that the others are compared with.
        sets: how often the prompts are completed.
    """
    config = load(conf, ["optim.max_grad_norm=null"]).config
    objectives = {m: load(conf, settings).config.objective for m, settings in methods.items()}
    with ExitStack() as stack, make_console(sys.stderr, quiet=True) as console:
        make_models(config, console)
        parts = start_parts(config, stack, console, None)
        batches = [completed(parts, config, number) for number in range(sets)]
        taken = {m: [gradient(parts, batch, o) for batch in batches] for m, o in objectives.items()}
        model = config.teacher.checkpoint()
        assert model is not None
        engine = config.rollout.start(model, max_len=64, seed=0)
        stack.callback(engine.close)
        teacher = evaluate(engine, None, parts.data, parts.tokenizer, config, parts.stop).metrics["eval/accuracy"]
    return {
        "teacher": teacher,
        "noise": noise({m: [g for g, _ in pairs] for m, pairs in taken.items()}, exact),
        "seconds": {m: statistics.median(t for _, t in pairs) for m, pairs in taken.items()},
    }


def completed(parts: Parts, config: Config, number: int) -> Batch:
    """The prompts of the first step with completions of their own, scored with all that any estimator asks for."""
    drawn = replace(sampling(config, parts, 0), seed=derive(0, "set", number))
    rollouts = parts.engine.sample(parts.data.take(0), drawn)
    judged = parts.teacher.score(rollouts, Needs(logprobs=True, distribution=True, top_k=5))
    scored = [Scored(r, j) for r, j in zip(rollouts, judged, strict=True)]
    return to_batch(scored, parts.tokenizer.pad_token_id, config.optim.micro_tokens)


def gradient(parts: Parts, batch: Batch, objective: Objective) -> tuple[Tensor, float]:
    """The gradient that an update would step along, [P], and the seconds of that update; the weights stay."""
    student, kept = parts.student, []

    def keep(*_: Any) -> None:
        kept.append(torch.cat([p.grad.flatten() for p in student.params if p.grad is not None]))

    hook = student.optimizer.register_step_pre_hook(keep)
    begin = time.perf_counter()
    student.update(batch, objective, 0.0, parts.teacher)
    seconds = time.perf_counter() - begin
    hook.remove()
    return kept[0], seconds


def noise(gradients: Mapping[str, Sequence[Tensor]], exact_name: str) -> dict[str, dict[str, float]]:
    """How far one batch's gradient is from the mean one of the exact estimator, the mean over K batches.

    `variance` is `sum_k |g_k - mean g|^2 / (K - 1)`, as a share of the squared norm of the exact estimator's mean
    gradient (less what its own variance adds to that); `cosine` is that of g_k to that mean gradient.
    """

    def scatter(rows: Tensor) -> float:
        return float((rows - rows.mean(0)).square().sum()) / (len(rows) - 1)

    stacked = {m: torch.stack(list(rows)) for m, rows in gradients.items()}
    exact = stacked[exact_name].mean(0)
    square = float(exact.square().sum()) - scatter(stacked[exact_name]) / len(stacked[exact_name])
    return {
        m: {
            "variance": scatter(rows) / square,
            "cosine": float(torch.cosine_similarity(rows, exact[None]).mean()),
            "mean_cosine": float(torch.cosine_similarity(rows.mean(0), exact, dim=0)),
        }
        for m, rows in stacked.items()
    }
