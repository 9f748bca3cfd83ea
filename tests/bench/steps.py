"""One optimizer step, ours and the naive one that everybody writes first; both give the same loss and gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from opd import batch
from opd.batch import Piece, to_batch
from opd.devices.compute import pick_device
from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models.heads import split_model
from opd.models.loading import load_causal_lm
from opd.needs import Needs
from opd.objectives import ReverseKL
from opd.objectives.policy_gradient import token_losses
from opd.teachers.local import LocalScorer, LocalTeacher
from opd.types import Pretrained, Scored
from tests.bench import cases, meter

Measure = Callable[[], dict[str, float]]
LR = 1e-5


def student_of(model: str, dtype: str, vocabulary: int = cases.VOCABULARY) -> Student:
    """Load a learner and let it take a small step, so that its optimizer has its state."""
    student = Student.load(StudentConfig(model=model, dtype=dtype), Optim(), temperature=1.0)
    student.update(to_batch(cases.scored([(4, 4)], vocabulary=vocabulary), 0, 4096), ReverseKL(), LR)
    return student


def teacher_of(model: str, dtype: str) -> LocalScorer:
    """A local teacher that reads the student's prompt ids: it needs no tokenizer."""
    settings = LocalTeacher(model=model, dtype=dtype, prompt="student", micro_tokens=4096)
    network = load_causal_lm(Pretrained(model), getattr(torch, dtype), "sdpa", pick_device("auto"))
    network.requires_grad_(False).eval()
    return LocalScorer(settings, None, split_model(network), cases.VOCABULARY)


def measure_step(spec: dict[str, Any]) -> Measure:
    """A step on even lengths: `chunked` or `naive`, with the teacher's exact KL logged or not; memory or seconds."""
    items = cases.scored(spec["lengths"])
    student = student_of(spec["model"], spec["dtype"])
    teacher = teacher_of(spec["model"], spec["dtype"]) if spec["exact"] else None
    step = {"chunked": chunked_step, "naive": naive_step}[spec["variant"]]
    out: dict[str, float] = {}

    def run() -> None:
        out.update(step(student, items, teacher))

    def measure() -> dict[str, float]:
        return {"peak_mib": meter.peak_growth(run), **out} if spec["memory"] else {"seconds": meter.timed(run), **out}

    return measure


def measure_layout(spec: dict[str, Any]) -> Measure:
    """A step of ours on uneven lengths, its sequences `packed` or `padded` in the order given."""
    items = cases.scored(spec["lengths"])
    student = student_of(spec["model"], spec["dtype"])
    with right_padded() if spec["variant"] == "padded" else contextlib.nullcontext():
        made = to_batch(items, 0, 4096)

    def measure() -> dict[str, float]:
        seconds = meter.timed(lambda: student.update(made, ReverseKL(), LR))
        return {"seconds": seconds, "tokens": made.trained, "padding": made.padding}

    return measure


def measure_teacher(spec: dict[str, Any]) -> Measure:
    """Teacher scoring on uneven lengths: `ours`, or `naive` with full logits of one padded batch."""
    rollouts = [s.rollout for s in cases.scored(spec["lengths"])]
    teacher = teacher_of(spec["model"], spec["dtype"])

    def ours() -> float:
        return sum(float(j.logprobs.sum()) for j in teacher.score(rollouts, Needs(logprobs=True)))

    @torch.no_grad()
    def naive() -> float:
        ids, mask, trained = pad_right([(r.prompt.tokens, r.tokens) for r in rollouts], teacher_device(teacher))
        return float((token_logprobs(full_logits(teacher.split.model, ids, mask), ids) * trained).sum())

    call = {"ours": ours, "naive": naive}[spec["variant"]]
    total: list[float] = []

    def measure() -> dict[str, float]:
        seconds = meter.timed(lambda: total.append(call()))
        return {"seconds": seconds, "tokens": sum(len(r.tokens) for r in rollouts), "check": total[-1]}

    return measure


def chunked_step(student: Student, items: Sequence[Scored], teacher: LocalScorer | None) -> dict[str, float]:
    """The step that `opd train` takes: score, pack, update."""
    if teacher is not None:
        judged = teacher.score([s.rollout for s in items], Needs(logprobs=True, distribution=True))
        items = [replace(s, teacher=replace(s.teacher, state=j.state)) for s, j in zip(items, judged, strict=True)]
    metrics = student.update(to_batch(items, 0, 4096), ReverseKL(), LR, teacher)
    return {"check": metrics["optim/grad_norm"], "exact": metrics.get("kl/exact", 0.0)}


def naive_step(student: Student, items: Sequence[Scored], teacher: LocalScorer | None) -> dict[str, float]:
    """One padded batch, the model's own [B, L, V] logits, and log-probs of all of them."""
    ids, mask, trained = pad_right([(s.rollout.prompt.tokens, s.rollout.tokens) for s in items], student.device)
    mu, q = (_table(items, trained, name) for name in ("mu", "q"))
    with student.autocast():
        logps = full_logits(student.model, ids, mask).log_softmax(-1)
        chosen = logps.gather(-1, ids[:, 1:, None])[..., 0]
        losses = token_losses(chosen, mu, q - mu)
        ((losses * trained).sum() / trained.sum()).backward()
    exact = 0.0
    if teacher is not None:
        with torch.no_grad():
            teacher_logps = full_logits(teacher.split.model, ids, mask).log_softmax(-1)
            divergence = (logps.exp() * (logps - teacher_logps)).sum(-1)
            exact = float((divergence * trained).sum() / trained.sum())
    norm = torch.nn.utils.clip_grad_norm_(student.params, 1.0)
    student.optimizer.step()
    student.optimizer.zero_grad(set_to_none=True)
    return {"check": float(norm), "exact": exact}


def full_logits(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Float32 logits [B, L-1, V] that predict all tokens but the first."""
    return model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=False).logits.float()


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probs [B, L-1] of all tokens but the first."""
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]


def pad_right(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], device: torch.device) -> tuple[Tensor, ...]:
    """Ids and attention mask [B, L], and which of the L-1 predicted tokens are trained, float32 [B, L-1]."""
    width = max(len(p) + len(c) for p, c in pairs)
    ids, mask = torch.zeros(len(pairs), width, dtype=torch.int64), torch.zeros(len(pairs), width, dtype=torch.int64)
    trained = torch.zeros(len(pairs), width - 1)
    for i, (p, c) in enumerate(pairs):
        ids[i, : len(p) + len(c)] = torch.tensor([*p, *c])
        mask[i, : len(p) + len(c)] = 1
        trained[i, len(p) - 1 : len(p) + len(c) - 1] = 1
    return ids.to(device), mask.to(device), trained.to(device)


def teacher_device(teacher: LocalScorer) -> torch.device:
    """Where its weights are."""
    return teacher.split.head.weight.device


@contextlib.contextmanager
def right_padded() -> Iterator[None]:
    """Lay sequences out one to a row in the order given, in micro-batches of the same budget."""
    plan = batch.plan_rows
    batch.plan_rows = _plan_padded
    try:
        yield
    finally:
        batch.plan_rows = plan


def _plan_padded(lengths: Sequence[int], micro_tokens: int, shared: bool = True) -> list[list[list[Piece]]]:
    micro: list[list[list[Piece]]] = [[]]
    width = 0
    for i, n in enumerate(lengths):
        width = max(width, n)
        if micro[-1] and (len(micro[-1]) + 1) * width > micro_tokens:
            micro.append([])
            width = n
        micro[-1].append([Piece(i, 0)])
    return micro


def _table(items: Sequence[Scored], trained: Tensor, which: str) -> Tensor:
    """Log-probs laid out like `trained`, 0 elsewhere."""
    out = torch.zeros(trained.shape)
    for row, s in zip(out, items, strict=True):
        first = len(s.rollout.prompt.tokens) - 1
        row[first : first + len(s.rollout.tokens)] = (
            torch.tensor(s.rollout.logprobs) if which == "mu" else s.teacher.logprobs
        )
    return out.to(trained.device)
