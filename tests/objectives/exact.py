"""A world so small that every completion can be written down: expectations are sums, and gradients exact.

A policy is a table of logits, one row for every prefix; all is float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from opd.protocols import Objective
from opd.tensors import Completions, Tokens, each

EOS = 0
Divergence = Callable[[Tensor, Tensor], Tensor]
"""Of log-probs [P, V] of student and teacher, [P]."""


@dataclass(frozen=True)
class World:
    """All completions over V tokens that end with EOS (token 0) or are cut at `length`."""

    vocabulary: int = 4
    length: int = 3

    @cached_property
    def sequences(self) -> list[tuple[int, ...]]:
        words = itertools.product(range(self.vocabulary), repeat=self.length)
        return list(dict.fromkeys(w[: w.index(EOS) + 1] if EOS in w else w for w in words))

    @cached_property
    def prefixes(self) -> dict[tuple[int, ...], int]:
        return {p: i for i, p in enumerate(dict.fromkeys(s[:t] for s in self.sequences for t in range(len(s))))}

    def policy(self, seed: int, scale: float = 1.5) -> Tensor:
        """Random logits [P, V]."""
        generator = torch.Generator().manual_seed(seed)
        return scale * torch.randn(len(self.prefixes), self.vocabulary, generator=generator, dtype=torch.float64)

    def rows(self, sequences: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Rows of a policy's table and tokens, of all tokens of these sequences one after the other."""
        rows = [self.prefixes[s[:t]] for s in sequences for t in range(len(s))]
        return torch.tensor(rows), torch.tensor([token for s in sequences for token in s])

    def spread(self, values: Tensor, sequences: Sequence[tuple[int, ...]]) -> Tensor:
        """Values of all tokens, [N], as a table [B, T] with zeros on the right."""
        table = values.new_zeros(len(sequences), self.length)
        table[self.mask(sequences)] = values
        return table

    def mask(self, sequences: Sequence[tuple[int, ...]]) -> Tensor:
        return torch.tensor([[t < len(s) for t in range(self.length)] for s in sequences])

    def probabilities(self, log_probs: Tensor) -> Tensor:
        """Of every completion under a table of log-probs [P, V]."""
        rows, tokens = self.rows(self.sequences)
        return self.spread(log_probs[rows, tokens], self.sequences).sum(1).exp()

    def reach(self, log_probs: Tensor) -> Tensor:
        """How probable it is to come by each prefix, [P], detached."""
        return torch.stack(
            [torch.tensor([log_probs[self.prefixes[p[:t]], p[t]] for t in range(len(p))]).sum() for p in self.prefixes]
        ).exp()


def entropy(logits: Tensor) -> Tensor:
    """Of each row of logits [P, V], nats."""
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def losses(
    world: World,
    objective: Objective,
    student: Tensor,
    teacher: Tensor,
    behavior: Tensor,
    policy: Tensor,
    sequences: Sequence[tuple[int, ...]],
    rewards: Tensor | None = None,
    span: int = 0,
    served: bool = False,
) -> Tensor:
    """The objective's loss of each token of `sequences`, [B, T], with a graph to `student` [P, V].

    `behavior` and `policy` are log-probs [P, V]; all sequences are of one prompt. `span`: tokens to a byte span.
    `served`: the teacher is a server, asked for the likeliest tokens of `policy`.
    """
    rows, tokens = world.rows(sequences)
    log_q = teacher.log_softmax(-1)
    mu, pi, q = (table.detach()[rows, tokens] for table in (behavior, policy, log_q))
    mask = world.mask(sequences)
    completions = Completions(
        behavior_logprobs=world.spread(mu, sequences),
        policy_logprobs=world.spread(pi, sequences),
        teacher_logprobs=world.spread(q, sequences),
        reference_logprobs=world.spread(q, sequences),
        spans=torch.arange(world.length).expand(mask.shape) // span if span else torch.full(mask.shape, -1),
        mask=mask,
        rewards=torch.zeros(len(sequences)) if rewards is None else rewards,
        groups=torch.zeros(len(sequences), dtype=torch.int64),
        origins=("student",) * len(sequences),
        seeds=torch.arange(len(sequences)),
        current_logprobs=world.spread(student.detach().log_softmax(-1)[rows, tokens], sequences),
        current_entropy=world.spread(entropy(student.detach())[rows], sequences),
    )
    needs = objective.needs

    def best(by: Tensor, k: int) -> tuple[Tensor | None, Tensor | None]:
        index = by.detach()[rows].topk(min(k, world.vocabulary)).indices
        return (index, log_q[rows].gather(-1, index)) if k else (None, None)

    top_ids, top_logprobs = best(log_q, needs.top_k)
    asked_ids, asked_logprobs = best(policy, needs.student_top_k * served)
    made = Tokens(
        behavior_logprobs=mu,
        policy_logprobs=mu,
        teacher_logprobs=q,
        top_ids=top_ids,
        top_logprobs=top_logprobs,
        asked_ids=asked_ids,
        asked_logprobs=asked_logprobs,
        logits=student[rows],
        tokens=tokens,
        logprobs=student.log_softmax(-1)[rows, tokens],
        advantages=each(lambda a: a[mask].to(student.dtype), objective.advantages(completions)),
        teacher_logits=None if served else teacher[rows],
    )
    return world.spread(objective.loss(made), sequences)


def expected_gradient(
    world: World,
    objective: Objective,
    student: Tensor,
    teacher: Tensor,
    behavior: Tensor | None = None,
    served: bool = False,
) -> Tensor:
    """Mean gradient [P, V] of the summed loss of a completion that `behavior` (log-probs) wrote; None: the student."""
    student = student.detach().requires_grad_()
    policy = student.detach().log_softmax(-1)
    mu = policy if behavior is None else behavior
    loss = losses(world, objective, student, teacher, mu, policy, world.sequences, served=served).sum(1)
    return torch.autograd.grad((world.probabilities(mu).detach() * loss).sum(), student)[0]


def divergence_gradient(
    world: World, divergence: Divergence, student: Tensor, teacher: Tensor, behavior: Tensor | None = None
) -> Tensor:
    """Gradient of a divergence at every position that `behavior` comes by, none through how it came there."""
    student = student.detach().requires_grad_()
    log_pi = student.log_softmax(-1)
    reach = world.reach(log_pi.detach() if behavior is None else behavior)
    return torch.autograd.grad((reach * divergence(log_pi, teacher.log_softmax(-1))).sum(), student)[0]


def sequence_kl_gradient(world: World, student: Tensor, teacher: Tensor) -> Tensor:
    """Gradient of KL(pi||q) between the distributions of whole completions."""
    student = student.detach().requires_grad_()
    pi, q = (world.probabilities(table.log_softmax(-1)) for table in (student, teacher))
    return torch.autograd.grad((pi * (pi / q).log()).sum(), student)[0]
