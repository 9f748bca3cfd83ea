"""Student and teacher writing together: mu is exactly what was drawn from."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opd.config.compose import load
from opd.loop import ages, older
from opd.rollout.hf import Hf
from opd.sources.teacher_mixed import BySample, ByToken, MixingSampler, TeacherMixed, sequence_mixture
from opd.types import Example, Judgement, Pretrained, Prompt, Rollout, Sampling, Scored, UserError
from tests.sources.desks import STOP, TableEngine, make_desk, tables
from tests.tiny import char_tokenizer, prompts

V, T = 4, 3
PROMPT = Prompt(Example("p", ()), (2,))
STUDENT, TEACHER = tables(5, V)
Sequence = tuple[int, ...]
REPLAY = ("source.tasks={arithmetic: {_target_: opd.sources.dataset.DatasetSource}}", "objective=gkd")


def every_completion() -> list[Sequence]:
    """All completions of at most T tokens: those that end with the stop id, and those that are cut."""
    out = []
    for length in range(1, T + 1):
        for ids in itertools.product(range(V), repeat=length):
            if STOP not in ids[:-1] and (ids[-1] == STOP or length == T):
                out.append(ids)
    return out


def scores(engine: TableEngine, tokens: Sequence) -> list[float]:
    return engine.logprobs([(PROMPT.tokens, tokens)])[0]


def mixed(tokens: Sequence, alpha: float) -> tuple[float, ...]:
    return sequence_mixture(scores(STUDENT, tokens), scores(TEACHER, tokens), alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.7, 1.0])
def test_the_mixture_of_samples_is_a_distribution_and_its_weights_average_to_one(alpha: float) -> None:
    mu = {y: math.exp(sum(mixed(y, alpha))) for y in every_completion()}
    pi, q = ({y: math.exp(sum(scores(e, y))) for y in mu} for e in (STUDENT, TEACHER))
    assert sum(mu.values()) == pytest.approx(1, abs=1e-12)
    for y, chance in mu.items():
        assert chance == pytest.approx(alpha * q[y] + (1 - alpha) * pi[y], abs=1e-12)
    assert sum(mu[y] * (pi[y] / mu[y]) for y in mu) == pytest.approx(1, abs=1e-12)


def test_each_tokens_mu_is_the_conditional_of_the_mixture_of_samples() -> None:
    alpha = 0.3
    chance = {
        y: alpha * math.exp(sum(scores(TEACHER, y))) + (1 - alpha) * math.exp(sum(scores(STUDENT, y)))
        for y in every_completion()
    }

    def begins_with(prefix: Sequence) -> float:
        return sum(c for y, c in chance.items() if y[: len(prefix)] == prefix)

    for y in chance:
        for t, log_mu in enumerate(mixed(y, alpha)):
            assert math.exp(log_mu) == pytest.approx(begins_with(y[: t + 1]) / begins_with(y[:t]), rel=1e-9)


class Pushed(TableEngine):
    """An engine that was handed the weights of step 7."""

    def _one(self, prompt: Prompt, sampling: Sampling, place: int) -> Rollout:
        return replace(super()._one(prompt, sampling, place), version=7)


def test_whole_samples_are_as_old_as_the_students_weights_whoever_wrote_them() -> None:
    asked = Sampling(max_tokens=T, n=40, stop=(STOP,), seed=1)
    written = TeacherMixed(alpha=0.5).start(make_desk(Pushed(STUDENT.table), TEACHER)).sample([PROMPT], asked)
    judged = [Scored(r, Judgement(torch.zeros(len(r.tokens)))) for r in written]
    assert not ages(judged, 7)
    assert not any(older(r, 7) for r in written)  # or nobody would look at how far engine and learner are apart


def test_whole_samples_carry_the_mixtures_and_the_students_log_probs() -> None:
    asked = Sampling(max_tokens=T, n=4000, stop=(STOP,), seed=1)
    written = TeacherMixed(alpha=0.3).start(make_desk(STUDENT, TEACHER)).sample([PROMPT], asked)
    for rollout in written[:200]:
        assert rollout.policy_logprobs == pytest.approx(scores(STUDENT, rollout.tokens))
        assert rollout.logprobs == pytest.approx(mixed(rollout.tokens, 0.3))
        assert rollout.prompt is PROMPT
        assert rollout.writers == ("student", "teacher")
        assert rollout.truncated == (rollout.tokens[-1] != STOP)
    weights = np.array([math.exp(sum(r.policy_logprobs or ()) - sum(r.logprobs)) for r in written])
    assert weights.mean() == pytest.approx(1, abs=4 * weights.std() / len(weights) ** 0.5)
    seen = np.mean([r.tokens[0] == 0 for r in written])
    assert seen == pytest.approx(math.exp(mixed((0, 0, 0), 0.3)[0]), abs=0.03)


def test_the_teacher_writes_its_share_after_its_own_reading() -> None:
    student, teacher = tables(5, V)
    desk = make_desk(student, teacher, read=lambda given: [(3, 3, *p.tokens) for p in given])
    written = TeacherMixed(alpha=0.25).start(desk).sample([PROMPT], Sampling(max_tokens=T, n=400, stop=(STOP,)))
    assert len(student.shown) + len(teacher.shown) == 400
    assert 60 < len(teacher.shown) < 140
    assert {p.tokens for p in teacher.shown} == {(3, 3, 2)}
    assert {r.prompt.tokens for r in written} == {(2,)}


def test_whole_samples_are_refused_at_another_temperature() -> None:
    writer = TeacherMixed().start(make_desk(STUDENT, TEACHER))
    with pytest.raises(UserError, match=r"sampling\.temperature=0\.7: .* allowed is 1, or rollout=hf"):
        writer.sample([PROMPT], Sampling(max_tokens=2, temperature=0.7))


def test_same_seed_same_rollouts() -> None:
    writer = TeacherMixed().start(make_desk(STUDENT, TEACHER))
    first, again, other = (
        writer.sample([PROMPT] * 3, Sampling(max_tokens=T, n=4, stop=(STOP,), seed=s)) for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_by_token_mu_is_the_mixture_of_both_models_next_token_distributions(
    student_dir: Path, teacher_dir: Path, temperature: float
) -> None:
    engines = [
        Hf(dtype="float32", batch_size=4).start(Pretrained(str(d)), max_len=64, seed=0)
        for d in (student_dir, teacher_dir)
    ]
    assert isinstance(engines[0], MixingSampler)
    desk = make_desk(*engines, read=lambda given: [(9, *p.tokens) for p in given])
    writer = TeacherMixed(alpha=0.4).start(desk)
    assert isinstance(writer, ByToken)
    asked = prompts(char_tokenizer(), ["1+1", "23-4+5:", "5"])
    sampling = Sampling(max_tokens=8, n=3, stop=(STOP,), seed=2, temperature=temperature)
    written = writer.sample(asked, sampling)
    assert all(r.prompt is p for r, p in zip(written, [p for p in asked for _ in range(3)], strict=True))
    assert {(r.origin, r.writers) for r in written} == {("teacher_mixed", ("student", "teacher"))}
    assert written == writer.sample(asked, sampling)
    assert written != writer.sample(asked, replace(sampling, seed=3))
    if temperature != 1:
        return
    pi = engines[0].logprobs([(r.prompt.tokens, r.tokens) for r in written])
    q = engines[1].logprobs([((9, *r.prompt.tokens), r.tokens) for r in written])
    for rollout, log_pi, log_q in zip(written, pi, q, strict=True):
        assert rollout.policy_logprobs == pytest.approx(log_pi, abs=1e-4)
        assert rollout.logprobs == pytest.approx(
            np.logaddexp(math.log(0.4) + np.array(log_q), math.log(0.6) + np.array(log_pi)), abs=1e-4
        )


def test_an_engine_that_cannot_mix_tokens_mixes_samples() -> None:
    assert isinstance(TeacherMixed().start(make_desk(STUDENT, TEACHER)), BySample)
    assert TeacherMixed().policy


@pytest.mark.parametrize("source", [
    ["source=teacher_mixed"],
    ["source=by_task", "source.others={_target_: opd.sources.teacher_mixed.TeacherMixed}", *REPLAY],
])  # fmt: skip
def test_no_token_is_written_together_where_each_has_a_process_of_its_own(source: list[str]) -> None:
    with pytest.raises(UserError, match=r"source=teacher_mixed: with rollout=hf .* devices=apart .* devices=ranks, or"):
        load("quickstart", ["rollout=hf", "devices=apart", *source])
    for elsewhere in (["rollout=vllm", "devices=apart"], ["rollout=hf", "devices=ranks"], ["rollout=hf"]):
        load("quickstart", [*elsewhere, *source])
