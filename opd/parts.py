"""The live objects of a run, started in the order that they need each other."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from opd import checkpoint as ckpt
from opd.console import Console
from opd.data.prompts import PromptStream
from opd.loading import resolve_model, stop_ids, tokenizer_of
from opd.seeds import derive
from opd.settings import Config, SamplingConfig
from opd.student import Student
from opd.types import Need, Sampler, Sampling, Scorer, Vocabulary


@dataclass(frozen=True)
class Parts:
    """The live objects of a run."""

    student: Student
    teacher: Scorer
    engine: Sampler
    data: PromptStream
    tokenizer: Any
    stop: tuple[int, ...]


def make_models(cfg: Config, console: Console) -> None:
    """Make or convert the models that are not there yet; later calls find them in the cache."""
    with console.task("models"):
        resolve_model(cfg.student.model)
        cfg.teacher.checkpoint()


def start_parts(cfg: Config, stack: ExitStack, console: Console, resume: ckpt.Checkpoint | None) -> Parts:
    """Load data, student, teacher and engine; what is started is closed with `stack`, the last one first."""
    with console.task("student"):
        path = resolve_model(cfg.student.model)
        tokenizer = tokenizer_of(path, cfg.student.trust_remote_code)
        stop = stop_ids(path, tokenizer)
    with console.task("data"):
        data = cfg.data.start(tokenizer, derive(cfg.seed, "data"))
    with console.task("engine"):
        # Before torch runs its first kernel: the engine fixes how threads are bound.
        max_len = cfg.data.max_prompt_tokens + max(cfg.sampling.max_tokens, cfg.eval.max_tokens or 0)
        engine = cfg.rollout.start(path, max_len=max_len, seed=derive(cfg.seed, "engine", bits=32))
        stack.callback(engine.close)
    with console.task("learner"):
        torch.manual_seed(derive(cfg.seed, "learner"))  # adapters are drawn, and dropout is
        student = Student.load(cfg.student, cfg.optim, cfg.sampling.temperature, str(resume.model) if resume else None)
        if resume:
            ckpt.restore(resume, student)
    with console.task("teacher"):
        teacher = cfg.teacher.start(Vocabulary(tokenizer, student.vocabulary))
        stack.callback(teacher.close)
    return Parts(student, teacher, engine, data, tokenizer, stop)


def wanted(cfg: Config) -> frozenset[Need]:
    """What the teacher is asked for: the objective's needs, and its distribution for the exact KL where it has one."""
    exact: frozenset[Need] = frozenset({"distribution"}) if cfg.log.exact_kl else frozenset()
    return (cfg.objective.needs | exact) & cfg.teacher.provides


def sampling(cfg: Config, parts: Parts, step: int) -> Sampling:
    """How the student writes in this step."""
    s: SamplingConfig = cfg.sampling
    return Sampling(
        max_tokens=s.max_tokens, n=s.n, temperature=s.temperature, top_p=s.top_p, top_k=s.top_k, min_p=s.min_p,
        stop=parts.stop, seed=derive(cfg.seed, "rollout", step),
    )  # fmt: skip
