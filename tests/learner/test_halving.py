"""Steps that are done again in smaller micro-batches, and optimizer states that are there before the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from opd.batch import split_steps
from opd.devices.shortage import Shortage
from opd.learner.config import Lora, StudentConfig
from opd.learner.halving import fitted
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.needs import Needs
from opd.objectives.grpo import GRPO
from opd.objectives.reverse_kl import ReverseKL
from opd.objectives.sft import SFT
from opd.objectives.weighted import Term, Weighted
from opd.protocols import Objective
from opd.tensors import Advantages, Completions, MicroBatch, Tokens
from tests.tiny import rollouts, scored

SHAPES = [(3, 5), (2, 4), (4, 6), (3, 3), (2, 6), (3, 5), (1, 2), (5, 1)]
OBJECTIVES = {
    "reverse_kl": ReverseKL(discount=0.9),
    "reverse_kl, of now": ReverseKL(discount=1.0, student="now"),
    "grpo": GRPO(),
    "sft": SFT(),
    "sum": Weighted({"a": Term(ReverseKL(), 0.7), "b": Term(GRPO(), 0.3)}),
}

REFUSED = "CUDA out of memory. Tried to allocate 2 GiB."


@dataclass
class Narrow:
    """Memory for micro-batches of so many positions, and a list of those that were tried."""

    room: int
    error: Callable[[], Exception] = lambda: torch.OutOfMemoryError(REFUSED)
    late: bool = True
    """Not in the first micro-batch of an attempt, so that there are gradients already."""
    tried: list[int] = field(default_factory=list)

    def put(self, student: Student) -> None:
        inner = student._accumulate

        def accumulate(micro: MicroBatch, *rest: object) -> None:
            self.tried.append(micro.input_ids.numel())
            if self.tried[-1] > self.room and not self.late:
                raise self.error()
            inner(micro, *rest)
            if self.tried[-1] > self.room:
                raise self.error()

        student._accumulate = accumulate


def student(folder: Path, **settings: object) -> Student:
    torch.manual_seed(7)
    # With a large eps a step is in proportion to its gradient, however small that is.
    optim = Optim(micro_tokens=36, lr=1e-2, eps=1.0, **settings)
    return Student.load(StudentConfig(str(folder), dtype="float32"), optim, 0.8)


def step(learner: Student, objective: Objective, say: Callable[[str], None] = print) -> dict[str, float]:
    items = rollouts(SHAPES)
    pairs = [replace(r, prompt=items[i // 2 * 2].prompt) for i, r in enumerate(items)]  # two samples of each prompt
    (pack,) = split_steps(scored(pairs), 1, 0)
    return fitted(learner, pack, partial(learner.update, objective=objective, lr=1e-2), say)


def weights(learner: Student) -> Tensor:
    return torch.cat([p.detach().flatten() for p in learner.params])


@pytest.mark.parametrize("late", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_that_is_done_again_is_the_one_of_smaller_micro_batches(
    name: str, late: bool, student_dir: Path
) -> None:
    told: list[str] = []
    short, roomy = student(student_dir), student(student_dir)
    begun = weights(short)
    narrow = Narrow(room=12, late=late)
    narrow.put(short)
    metrics = step(short, OBJECTIVES[name], told.append)
    assert narrow.tried[0] > 12 >= max(narrow.tried[-4:])
    assert told == [
        "out of memory in update: the step was done again with optim.micro_tokens="
        f"{short.optim.micro_tokens}, which stays; it was 36"
    ]
    assert (short.steps, roomy.steps) == (1, 0)
    known = step(roomy, OBJECTIVES[name])
    assert not torch.equal(begun, weights(short))
    assert torch.allclose(weights(short), weights(roomy), atol=1e-6)
    assert metrics == pytest.approx({**known, "optim/padding": metrics["optim/padding"]}, rel=1e-4, abs=1e-6)
    same = student(student_dir)
    same.optim = replace(same.optim, micro_tokens=short.optim.micro_tokens)
    step(same, OBJECTIVES[name])
    assert torch.equal(weights(short), weights(same))
    step(short, OBJECTIVES[name], told.append)
    assert len(told) == 1


def test_dropout_draws_again_what_it_had_drawn(student_dir: Path) -> None:
    def adapted(micro_tokens: int) -> Student:
        torch.manual_seed(7)
        config = StudentConfig(str(student_dir), dtype="float32", lora=Lora(rank=2, dropout=0.5))
        made = Student.load(config, Optim(micro_tokens=micro_tokens), 1.0)
        torch.manual_seed(8)
        return made

    short = adapted(36)
    Narrow(room=12).put(short)
    step(short, SFT(), str)
    same = adapted(short.optim.micro_tokens)
    step(same, SFT())
    assert torch.equal(weights(short), weights(same))


@pytest.mark.parametrize(
    ("room", "settings"), [(1, {}), (12, {"halving": False})], ids=["one sequence", "switched off"]
)
def test_what_does_not_fit_ends_it_with_the_weights_as_they_were(
    room: int, settings: Mapping[str, bool], student_dir: Path
) -> None:
    told: list[str] = []
    learner = student(student_dir, **settings)
    before = weights(learner)
    Narrow(room).put(learner)
    with pytest.raises(Shortage, match=r"out of memory in gradients.*: tried to allocate 2 GiB"):
        step(learner, ReverseKL(), told.append)
    assert torch.equal(before, weights(learner))
    assert all(p.grad is None for p in learner.params)
    assert not told


def test_another_error_is_not_tried_again(student_dir: Path) -> None:
    learner = student(student_dir)
    narrow = Narrow(12, partial(RuntimeError, "shapes do not match"))
    narrow.put(learner)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        step(learner, ReverseKL())
    assert len(narrow.tried) == 1
    assert all(p.grad is None for p in learner.params)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(REFUSED), Shortage(REFUSED)], ids=["torch", "told"])
def test_memory_that_is_short_in_the_optimizers_own_step_is_no_reason_to_take_it_twice(
    error: Exception, student_dir: Path
) -> None:
    learner = student(student_dir)
    taken = []

    def refused() -> None:
        taken.append(1)
        raise error

    learner.optimizer.step = refused
    with pytest.raises(type(error)):
        step(learner, ReverseKL())
    assert len(taken) == 1


@dataclass(frozen=True)
class Greedy:
    """An objective that is refused memory itself, once."""

    asked: list[int] = field(default_factory=list)
    needs = Needs(logprobs=True, policy=True)

    def advantages(self, completions: Completions) -> Advantages:
        return ReverseKL().advantages(completions)

    def loss(self, tokens: Tokens) -> Tensor:
        self.asked.append(len(tokens.tokens))
        if len(self.asked) == 1:
            raise MemoryError
        return ReverseKL().loss(tokens)


def test_an_objective_that_is_refused_memory_gets_smaller_micro_batches(student_dir: Path) -> None:
    told: list[str] = []
    step(student(student_dir), objective := Greedy(), told.append)
    assert len(told) == 1
    assert sum(objective.asked[1:]) == sum(c for _, c in SHAPES)


def test_optimizer_states_are_there_before_the_first_step_and_those_of_a_first_step(student_dir: Path) -> None:
    learner, bare = student(student_dir), student(student_dir)
    held = {p: {n: t.data_ptr() for n, t in s.items()} for p, s in learner.optimizer.state.items()}
    assert set(held) == set(learner.params)
    bare.optimizer.state.clear()
    for _ in range(2):
        step(learner, ReverseKL())
        step(bare, ReverseKL())
    assert {p: {n: t.data_ptr() for n, t in s.items()} for p, s in learner.optimizer.state.items()} == held
    assert torch.equal(weights(learner), weights(bare))
    for p, q in zip(learner.params, bare.params, strict=True):
        ours, theirs = learner.optimizer.state[p], bare.optimizer.state[q]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[n], theirs[n]) and ours[n].dtype == theirs[n].dtype for n in ours)
