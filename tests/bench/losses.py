"""A loss alone, from hidden states to their gradient and the head's: in chunks, and with full logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from opd.devices.compute import pick_device
from opd.models import heads
from opd.objectives import GKD, ReverseKL
from opd.protocols import Objective
from opd.tensors import Tokens
from tests.bench import cases, meter

HIDDEN = 576
OBJECTIVES: dict[str, Objective] = {"reverse_kl": ReverseKL(), "exact reverse KL": GKD(beta=1.0)}


class Problem:
    """Hidden states of N tokens, a head, a teacher's head, and signals: all random."""

    device = pick_device("auto")

    def __init__(self, dtype: str, count: int) -> None:
        torch.manual_seed(0)
        torch.set_default_device(self.device)
        self.head, theirs = (nn.Linear(HIDDEN, cases.VOCABULARY, bias=False) for _ in range(2))
        self.split, self.teacher = (heads.SplitModel(None, None, h, 1.0, None) for h in (self.head, theirs))
        self.hidden, self.state = torch.randn(count, HIDDEN), torch.randn(count, HIDDEN)
        self.tokens = torch.randint(0, cases.VOCABULARY, (count,))
        self.mu, self.advantages = torch.full((count,), -10.8), torch.randn(count)
        self.dtype, self.count = getattr(torch, dtype), count

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def view(self, logits: Tensor, logprobs: Tensor, rows: slice, exact: bool) -> Tokens:
        with torch.no_grad():
            theirs = self.teacher.logits(self.state[rows]) if exact else None
        return Tokens(
            self.mu[rows], self.mu[rows], self.mu[rows], logits=logits, tokens=self.tokens[rows], logprobs=logprobs,
            advantages=self.advantages[rows], teacher_logits=theirs,
        )  # fmt: skip


def chunked(problem: Problem, objective: Objective) -> Tensor:
    """As the learner does it."""
    with problem.autocast():
        head = heads.ChunkedHead(problem.split, problem.hidden)
        for c in heads.chunks(problem.count, problem.head.weight):
            logits = head.logits(c)
            logprobs, _ = heads.normalized(logits, problem.tokens[c])
            losses = objective.loss(problem.view(logits, logprobs, c, objective.needs.distribution))
            (losses.sum() / problem.count).backward()
            del logits, logprobs, losses
            head.backward(c)
    return head.grad


def naive(problem: Problem, objective: Objective) -> Tensor:
    """All logits at once, by autograd."""
    leaf = problem.hidden.clone().requires_grad_()
    with problem.autocast():
        logits = problem.head(leaf).float()
        logprobs = logits.log_softmax(-1).gather(-1, problem.tokens[:, None])[:, 0]
        losses = objective.loss(problem.view(logits, logprobs, slice(None), objective.needs.distribution))
        (losses.sum() / problem.count).backward()
    assert leaf.grad is not None
    return leaf.grad


def measure_loss(spec: dict[str, Any]) -> Callable[[], dict[str, float]]:
    """One variant; memory or seconds."""
    problem, objective = Problem(spec["dtype"], spec["count"]), OBJECTIVES[spec["objective"]]
    call = {"chunked": chunked, "naive": naive}[spec["variant"]]
    grads: list[Tensor] = []

    def run() -> None:
        problem.head.weight.grad = None
        grads[:] = [call(problem, objective)]

    def measure() -> dict[str, float]:
        out = {"peak_mib": meter.peak_growth(run)} if spec["memory"] else {"seconds": meter.timed(run)}
        weight = problem.head.weight.grad
        assert weight is not None
        return out | {"check": float(grads[0].norm()), "weight": float(weight.norm())}

    return measure
