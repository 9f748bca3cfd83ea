"""Every objective with the signals that it learns from, and the learner's gradient beside a naive one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Literal

import torch
from torch import Tensor

from opd.batch import to_batch
from opd.learner.student import Student
from opd.needs import Needs
from opd.objectives import (
    GKD,
    GRPO,
    SFT,
    Cap,
    Constant,
    EntropyKept,
    Gold,
    MiniLLM,
    Position,
    ReverseKL,
    Share,
    Shuffled,
    Term,
    TopK,
    Unsure,
    Weighted,
)
from opd.objectives.policy_gradient import Kind
from opd.objectives.top_k import Of
from opd.protocols import Objective, TokenWeight
from opd.teachers.local import score_sequences
from opd.teaching import Scorer
from opd.tensors import Batch, Tokens, each
from opd.types import Judgement, Rollout, Scored
from tests.tiny import rollouts

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2), (1, 12), (5, 5), (2, 3)]
By = Literal["entropy", "divergence", "both", "random"]
BY: tuple[By, ...] = ("entropy", "divergence", "both", "random")
OF: tuple[Of, ...] = ("teacher", "student", "union")
KINDS: tuple[Kind, ...] = ("importance_sampling", "ppo", "cispo", "truncated")


@dataclass(frozen=True)
class Case:
    """An objective, and what is peculiar to it."""

    name: str
    objective: Objective
    mixed: bool = False
    """Every other prompt has completions of a dataset, with a log mu of NaN."""
    divergence: bool = True
    """Zero, with its gradient, where the teacher is the student."""
    served: bool = False
    """Of the student's likeliest tokens the teacher's log-probs are given, and not its distribution: a server."""
    span: int = 1
    """Tokens to a byte span, for objectives that need them."""
    some: bool = False
    """Of every sequence only a share of the tokens is trained."""


MIXTURE = Weighted(terms={
    "teacher": Term(ReverseKL(kind="ppo"), origin="student"),
    "data": Term(SFT(), 0.5, origin="dataset"),
    "reward": Term(GRPO(length="sequence"), 0.25, origin="student"),
})  # fmt: skip


def weighed(objective: Objective, *rules: TokenWeight) -> Weighted:
    """An objective with weights on its tokens."""
    return Weighted(terms={"all": Term(objective, tokens={str(i): rule for i, rule in enumerate(rules)})})


WEIGHED = [
    Case("position", weighed(ReverseKL(), Position())),
    Case("position gkd", weighed(GKD(beta=0.3), Position(0.5))),
    Case("position minillm", weighed(MiniLLM(kind="ppo", gamma=0.9), Position())),
    *(Case(f"share {by}", weighed(ReverseKL(), Share(0.4, by)), some=True) for by in BY),
    *(Case(f"share {by} gkd", weighed(GKD(), Share(0.3, by)), some=True) for by in ("both", "random")),
    Case("share top_k", weighed(TopK(k=4), Share(0.5, "both")), some=True),
    Case("share sft", weighed(SFT(), Share(0.5)), some=True, divergence=False),
    Case("share grpo", weighed(GRPO(), Share(0.4, "both")), some=True, divergence=False),
    Case("cap", weighed(ReverseKL(), Cap(0.5))),
    Case("cap gkd", weighed(GKD(), Cap(0.5))),
    Case("weights of all kinds", weighed(ReverseKL(estimator="exact"), Position(), Cap(0.5), Share(0.6)), some=True),
    Case("share + dataset", Weighted(terms={
        "own": Term(ReverseKL(), origin="student", tokens={"a": Share(0.4, "both"), "b": Position()}),
        "data": Term(SFT(), 0.5, origin="dataset", tokens={"a": Share(0.4)}),
    }), mixed=True, some=True, divergence=False),
]  # fmt: skip
"""Weights on tokens."""
STALE = [
    *(Case(f"reverse_kl now {k}", ReverseKL(kind=k, student="now")) for k in KINDS),
    Case("reverse_kl baseline now", ReverseKL(estimator="baseline", clip=0.5, coef=0.5, student="now")),
    Case("reverse_kl discounted now", ReverseKL(discount=0.9, clip=2.0, student="now")),
    Case("reverse_kl beyond the teacher now", ReverseKL(extrapolate=1.5, student="now"), divergence=False),
    Case("minillm now", MiniLLM(kind="ppo", gamma=0.9, student="now")),
    Case("minillm long term now", MiniLLM(single_step=False, student="now")),
    Case("gold now", Gold(student="now"), span=2),
    Case("student now + dataset", MIXTURE.judging_now(), mixed=True, divergence=False),
]
"""The student of now is judged: the tokens are always somebody's whose log-probs are a little others."""
CASES = [
    *(Case(f"reverse_kl sampled {k}", ReverseKL(kind=k)) for k in KINDS),
    *(Case(f"reverse_kl baseline {k}", ReverseKL(estimator="baseline", kind=k)) for k in KINDS),
    Case("reverse_kl exact", ReverseKL(estimator="exact", coef=0.5)),
    Case("reverse_kl discounted", ReverseKL(discount=0.9, clip=2.0)),
    Case("reverse_kl to the reference", ReverseKL(to="reference"), divergence=False),
    Case("reverse_kl beyond the teacher", ReverseKL(extrapolate=1.5), divergence=False),
    *(Case(f"gkd {beta}", GKD(beta=beta)) for beta in (0.0, 0.3, 1.0)),
    Case("gkd hot", GKD(temperature=2.0)),
    *(Case(f"top_k of=teacher {beta}", TopK(k=4, beta=beta)) for beta in (0.0, 0.5, 1.0)),
    Case("top_k of=teacher without tail", TopK(k=4, beta=0.0, tail=False), divergence=False),
    Case("top_k of all", TopK(k=45)),
    *(Case(f"top_k of=student {k}", TopK(of="student", k=4, kind=k)) for k in KINDS[:2]),
    *(Case(f"top_k of=student served {k}", TopK(of="student", k=4, kind=k), served=True) for k in KINDS[:2]),
    *(Case(f"top_k of=union {beta}", TopK(of="union", k=4, beta=beta)) for beta in (0.0, 0.5, 1.0)),
    Case("top_k of=union served", TopK(of="union", k=4), served=True),
    *(Case(f"reverse_kl top_k {of}", ReverseKL(estimator="top_k", of=of, k=4, clip=2.0)) for of in OF),
    *(Case(f"reverse_kl top_k {of} served", ReverseKL(estimator="top_k", of=of, k=4), served=True) for of in OF[1:]),
    Case("minillm", MiniLLM(kind="ppo", gamma=0.9)),
    Case("minillm, sums", MiniLLM(length_normalised=False)),
    Case("minillm single step", MiniLLM(long_term=False)),
    Case("minillm long term", MiniLLM(single_step=False)),
    Case("gold", Gold(), span=2),
    Case("gold hybrid", Gold(method="hybrid")),
    Case("gold uld", Gold(method="uld"), divergence=False),  # |p - q| has a kink at 0, and no gradient there
    Case("sft", SFT(), divergence=False),
    Case("grpo by token", GRPO(kind="ppo"), divergence=False),
    Case("grpo by sequence", GRPO(length="sequence", std=False), divergence=False),
    Case("grpo by constant", GRPO(length="constant", max_tokens=16), divergence=False),
    Case("reverse_kl + grpo", Weighted(terms={"kl": Term(ReverseKL()), "r": Term(GRPO(), 0.5)}), divergence=False),
    Case("student + dataset", MIXTURE, mixed=True, divergence=False),
    Case("entropy aware", Weighted(terms={"reverse": Term(ReverseKL()), "forward": Term(Unsure(3.0), 0.7)})),
    Case("entropy aware everywhere", Unsure(0.0)),
    Case("entropy kept", EntropyKept()),
    Case("entropy kept baseline now", EntropyKept(estimator="baseline", kind="ppo", student="now", contracting=0.25)),
    *WEIGHED,
    Case("constant", Constant(), divergence=False),
    Case("constant ppo", Constant(kind="ppo", advantage=0.5), divergence=False),
    Case("shuffled", Shuffled()),
    Case("shuffled ppo", Shuffled(kind="ppo", coef=0.5, seed=3)),
    *STALE,
]


def judged(
    case: Case, student: Student, teacher: Scorer, shapes: Sequence[tuple[int, int]] = SHAPES, noise: float = 0.3
) -> list[Scored]:
    """Rollouts of about the student's policy, two to a prompt, with all that an objective may ask for."""
    generator = torch.Generator().manual_seed(5)
    made = rollouts(shapes)
    made = [replace(r, prompt=made[i - i % 2].prompt) for i, r in enumerate(made)]
    own = student.logprobs([(r.prompt.tokens, r.tokens) for r in made])
    mu = [torch.tensor(v) + noise * torch.randn(len(v), generator=generator) for v in own]
    made = [replace(r, logprobs=tuple(v.tolist())) for r, v in zip(made, mu, strict=True)]
    if case.mixed:
        made = [from_dataset(r) if i % 4 >= 2 else r for i, r in enumerate(made)]
    needs = case.objective.needs | Needs(logprobs=True)
    judgements = teacher.score(made, needs | Needs(distribution=needs.student_top_k > 0))
    if case.served:
        judgements = [
            served(student, teacher, r, j, needs.student_top_k) for r, j in zip(made, judgements, strict=True)
        ]
    if case.objective.needs.spans:
        judgements = [replace(j, spans=torch.arange(len(j.logprobs)) // case.span) for j in judgements]
    return [
        Scored(r, j, Judgement(-3 * torch.rand(len(r.tokens), generator=generator)), reward=float(i % 3 == 0))
        for i, (r, j) in enumerate(zip(made, judgements, strict=True))
    ]


def served(student: Student, teacher: Scorer, rollout: Rollout, judgement: Judgement, k: int) -> Judgement:
    """What a server says that was asked for the student's likeliest tokens."""
    pairs, size = [(rollout.prompt.tokens, rollout.tokens)], student.vocabulary
    with student.read() as split:
        (own,) = score_sequences(split, [pairs[0][0]], [pairs[0][1]], Needs(top_k=k), 4096, 1.0, size)
    assert own.top_ids is not None
    assert judgement.state is not None
    log_q = teacher.logits(judgement.state).log_softmax(-1)
    return replace(judgement, state=None, asked_ids=own.top_ids, asked_logprobs=log_q.gather(-1, own.top_ids))


def from_dataset(rollout: Rollout) -> Rollout:
    """The same, not written by the student."""
    return replace(rollout, origin="dataset", logprobs=(float("nan"),) * len(rollout.tokens))


class Recorder:
    """An optimizer that keeps the gradient of the step that it is asked to take, and takes none."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params, self.param_groups = params, list[dict[str, float]]()
        self.gradients: list[Tensor] = []

    def step(self) -> None:
        self.gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.params]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.params:
            p.grad = None


@dataclass(frozen=True)
class Step:
    """What an optimizer step comes to: the mean loss of its trained tokens, and its gradient."""

    loss: float
    gradients: list[Tensor]

    @property
    def size(self) -> float:
        """Largest entry of the gradient."""
        return max((g.abs().max().item() for g in self.gradients), default=0.0)


def step(student: Student, batch: Batch, objective: Objective, teacher: Scorer | None = None) -> Step:
    """Loss and gradient of the learner's own step."""
    recorder = Recorder(student.params)
    unclipped = replace(student.optim, max_grad_norm=None)
    metrics = replace(student, optimizer=recorder, optim=unclipped).update(batch, objective, 0.0, teacher)
    return Step(metrics.get("optim/loss", 0.0), recorder.gradients)


def naive_step(
    student: Student, items: Sequence[Scored], objective: Objective, teacher: Scorer, side: str = "right"
) -> Step:
    """One padded forward of the whole model for the step, and all its logits at once."""
    written = [s for s in items if s.rollout.tokens]
    width = max(len(s.rollout.prompt.tokens) + len(s.rollout.tokens) for s in written)
    ids, attention, rows, tokens = [], [], [], list[int]()
    for s in written:
        words = [*s.rollout.prompt.tokens, *s.rollout.tokens]
        pad = [0] * (width - len(words))
        ids.append([*pad, *words] if side == "left" else [*words, *pad])
        unseen, seen = [0] * len(pad), [1] * len(words)
        attention.append([*unseen, *seen] if side == "left" else [*seen, *unseen])
        first = (len(pad) if side == "left" else 0) + len(s.rollout.prompt.tokens) - 1
        rows.append([first + t for t, on in enumerate(s.rollout.mask) if on])
        tokens += [token for token, on in zip(s.rollout.tokens, s.rollout.mask, strict=True) if on]
    mask = torch.tensor(attention)
    out = student.model(
        input_ids=torch.tensor(ids), attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)
    ).logits
    logits = torch.cat([out[i, r] for i, r in enumerate(rows)]) / student.temperature
    made = naive_tokens(logits, torch.tensor(tokens), items, objective, teacher)
    loss = objective.loss(made).sum() / len(made.tokens)
    recorder = Recorder(student.params)
    loss.backward()
    recorder.step()
    recorder.zero_grad()
    return Step(loss.item(), recorder.gradients)


def naive_tokens(
    logits: Tensor, tokens: Tensor, items: Sequence[Scored], objective: Objective, teacher: Scorer
) -> Tokens:
    """All trained tokens of a step in the order of its sequences."""
    table = to_batch(items, 0, 10_000).completions
    logprobs = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    now = torch.zeros(table.mask.shape).masked_scatter(table.mask, logprobs.detach())
    entropies = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).detach()
    spread = torch.zeros(table.mask.shape).masked_scatter(table.mask, entropies)
    known = replace(table, current_logprobs=now, current_entropy=spread)
    masks = [torch.tensor(s.rollout.mask, dtype=torch.bool) for s in items]

    def of(name: str) -> Tensor | None:
        values = [getattr(s.teacher, name) for s in items]
        return None if values[0] is None else torch.cat([v[m] for v, m in zip(values, masks, strict=True)])

    def starts(spans: Tensor) -> Tensor:
        return torch.cat([torch.ones(1, dtype=torch.bool), spans[1:] != spans[:-1]])[: len(spans)]

    given = [s.teacher.spans for s in items]
    state = of("state")
    theirs = None if state is None else teacher.logits(state)
    own = logits if theirs is None else logits[:, : theirs.shape[1]]
    return Tokens(
        behavior_logprobs=table.behavior_logprobs[table.mask],
        policy_logprobs=table.policy_logprobs[table.mask],
        teacher_logprobs=table.teacher_logprobs[table.mask],
        teacher_state=state,
        top_ids=of("top_ids"),
        top_logprobs=of("top_logprobs"),
        asked_ids=of("asked_ids"),
        asked_logprobs=of("asked_logprobs"),
        span_starts=torch.cat([starts(v)[m] for v, m in zip(given, masks, strict=True) if v is not None])
        if all(v is not None for v in given)
        else None,
        logits=own,
        tokens=tokens,
        logprobs=logprobs,
        advantages=each(itemgetter(table.mask), objective.advantages(known)),
        teacher_logits=None if theirs is None else theirs[:, : logits.shape[1]],
    )


def assert_same(a: Step, b: Step) -> None:
    """Two ways to the same step, up to float32, whose rounding is of the terms: of size 1, or the gradient's."""
    assert abs(a.loss - b.loss) < 1e-5 * max(1.0, abs(b.loss))
    for x, y in zip(a.gradients, b.gradients, strict=True):
        torch.testing.assert_close(x, y, atol=2e-6 * max(1.0, b.size), rtol=1e-4)
