"""Which positions are trained: the completion's, from its first token to its EOS, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter

import pytest
import torch
from torch import Tensor

from opd.batch import to_batch
from opd.learner.student import Student
from opd.models.heads import gather_logprobs
from opd.teaching import Scorer
from opd.tensors import Tokens, each
from opd.types import Scored
from tests.objectives.cases import Case, assert_same, judged, naive_step, step
from tests.tiny import rollouts, scored

SHAPES = [(4, 3), (4, 6), (2, 1), (2, 5)]


def touched(case: Case, student: Student, teacher: Scorer, items: list[Scored]) -> list[list[bool]]:
    """For each sequence and each of its positions: whether the loss has a gradient in that position's logits."""
    batch = to_batch(items, 0, micro_tokens=1)  # one sequence at a time
    advantages = each(lambda a: a.flatten(0, 1), case.objective.advantages(student.completions(batch, case.objective)))
    found: list[list[bool]] = [[] for _ in items]
    for micro in batch.micro:
        with torch.no_grad():
            hidden = student.split.hidden(micro.input_ids, micro.position_ids)
            logits = student.split.logits(hidden) / student.temperature
        chosen = logits.requires_grad_()[micro.rows]
        state = micro.signals.teacher_state
        tokens = Tokens(
            **vars(micro.signals),
            logits=chosen,
            tokens=micro.tokens,
            logprobs=gather_logprobs(chosen, micro.tokens),
            advantages=each(itemgetter(micro.where), advantages),
            teacher_logits=None if state is None else teacher.logits(state),
        )
        case.objective.loss(tokens).sum().backward()
        assert isinstance(logits.grad, Tensor)
        found[micro.sequences[0]] = (logits.grad.abs().sum(-1) > 0).tolist()
    return found


def wanted(item: Scored) -> list[bool]:
    """The position before a trained token predicts it."""
    return [False] * (len(item.rollout.prompt.tokens) - 1) + list(item.rollout.mask)


def assert_trained(case: Case, found: list[list[bool]], items: list[Scored]) -> None:
    """All tokens that are to be, and no other; of a share of them at least one of each sequence, and not all."""
    if not case.some:
        assert found == [wanted(s) for s in items]
    for positions, item in zip(found, items, strict=True):
        trained = [on for on, want in zip(positions, wanted(item), strict=True) if want]
        assert sum(trained) == sum(positions)
        assert any(trained) == any(item.rollout.mask)
        assert not (case.some and len(trained) > 3 and all(trained))


@pytest.fixture
def items(case: Case, student: Student, teacher: Scorer) -> list[Scored]:
    made = judged(case, student, teacher, SHAPES, noise=0.0)  # no ratio is clipped
    rewards = (0.0, 1.0, 0.25, 0.5)  # every sequence has an advantage
    return [replace(s, reward=r) for s, r in zip(made, rewards, strict=True)]


def test_first_token_to_eos_and_nothing_else(
    case: Case, student: Student, teacher: Scorer, items: list[Scored]
) -> None:
    assert items[0].rollout.tokens[-1] == 1  # EOS
    assert items[1].rollout.truncated
    assert_trained(case, touched(case, student, teacher, items), items)


def test_what_an_environment_wrote_is_never_trained(
    case: Case, student: Student, teacher: Scorer, items: list[Scored]
) -> None:
    turns = (True, True, False, False, True, True)
    nowhere = (False, False, False)
    items[1] = replace(items[1], rollout=replace(items[1].rollout, trained=turns))
    items[0] = replace(items[0], rollout=replace(items[0].rollout, trained=nowhere))
    assert_trained(case, touched(case, student, teacher, items), items)
    assert_same(
        step(student, to_batch(items, 0, 8), case.objective, teacher),
        naive_step(student, items, case.objective, teacher),
    )


def test_what_is_known_of_an_environments_tokens_does_not_matter(
    case: Case, student: Student, teacher: Scorer, items: list[Scored]
) -> None:
    turns = (True, True, False, False, True, True)
    rollout = replace(items[1].rollout, trained=turns)
    unknown = [float("nan") if not on else v for v, on in zip(rollout.logprobs, turns, strict=True)]
    with_nan = replace(items[1], rollout=replace(rollout, logprobs=tuple(unknown)))
    plain = replace(items[1], rollout=rollout)
    assert_same(
        step(student, to_batch([items[0], with_nan, *items[2:]], 0, 64), case.objective, teacher),
        step(student, to_batch([items[0], plain, *items[2:]], 0, 64), case.objective, teacher),
    )


@pytest.mark.parametrize("eos", [1, 7, 44])
def test_whichever_token_ended_a_completion_it_is_trained(eos: int) -> None:
    (item,) = scored(rollouts([(4, 3)]))
    ended = replace(item.rollout, tokens=(*item.rollout.tokens[:-1], eos), truncated=False)
    (micro,) = to_batch([replace(item, rollout=ended)], eos, 64).micro  # the pad token is the EOS
    assert micro.tokens.tolist() == list(ended.tokens)
    assert micro.rows.tolist() == [3, 4, 5]
