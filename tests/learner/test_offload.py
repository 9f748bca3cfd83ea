"""Tensors that leave their device in their off time: the same objects and numbers, wherever they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from opd.batch import to_batch
from opd.learner import offload
from opd.learner.config import StudentConfig
from opd.learner.offload import Offload, Pinned, buckets, mover, prepare, step, tensors_of
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.needs import Needs
from opd.objectives import ReverseKL
from opd.run.resuming import restore
from opd.run.saving import save
from opd.teachers.own import SelfTeacher
from opd.teaching import Pupil
from tests.tenants import DIARY, DoubleMover
from tests.tiny import char_tokenizer, rollouts, scored

CPU = torch.device("cpu")


def networks() -> tuple[torch.nn.Sequential, torch.nn.Sequential]:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(torch.nn.Sequential(*(torch.nn.Linear(5, 5) for _ in range(4))))
    return made[0], made[1]


@pytest.mark.parametrize("most", [1, 40, 10**6])
def test_steps_in_shares_are_the_whole_step_to_the_bit(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "BUCKET", most)
    (a, b), states = networks(), Offload(DoubleMover("states"))
    one, other = (torch.optim.AdamW(n.parameters(), lr=0.1, weight_decay=0.1, fused=True) for n in (a, b))
    b[3].bias.requires_grad_(False)  # never has a gradient
    a[3].bias.requires_grad_(False)
    for i in range(3):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(i))
        for network in (a, b):
            network(x).square().sum().backward()
        one.step()
        one.zero_grad(set_to_none=True)
        step(other, states)
        assert all(p.grad is None for p in b.parameters())
        assert all(v.dtype == torch.float64 for s in other.state.values() for v in s.values() if v.dim())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert len(other.state) == 7


def test_shares_are_full_but_for_what_is_too_large() -> None:
    assert buckets([3, 3, 5, 9, 1, 1], most=6) == [[0, 1], [2], [3], [4, 5]]
    assert buckets([], most=6) == []


def test_what_only_reads_takes_nothing_home_again() -> None:
    values, weights = torch.ones(3), Offload(DoubleMover("weights"))
    weights.leave([values])
    home = weights.homes[values]
    with weights.here([values]):
        values += 1  # it was not to change
    assert values.data_ptr() == home.data_ptr()
    assert values.tolist() == [1, 1, 1]
    with weights.here([values], changing=[values]), weights.here([values]):
        values += 1
        assert values.dtype == torch.float32
    assert values.data_ptr() == home.data_ptr()
    assert values.tolist() == [2, 2, 2]


def test_a_learner_whose_step_fails_goes_home_too(student_dir: Path) -> None:
    student = Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), 1.0)
    student.away = Offload(DoubleMover("weights"))
    student.away.leave(student.params)
    items = scored(rollouts([(3, 5)]))
    items[0].teacher.logprobs[:] = float("nan")
    with pytest.raises(Exception, match="not finite"):
        student.update(to_batch(items, 0, 64), ReverseKL(), 1e-3)
    assert {p.dtype for p in student.params} == {torch.float64}
    assert all(p.isfinite().all() for p in student.params)
    DIARY.clear()
    dict(student.weights())
    assert DIARY == ["weights come", "weights leave"]


def test_a_moving_average_is_asked_where_the_learner_is_read(student_dir: Path) -> None:
    found, items = [], scored(rollouts([(3, 5), (2, 4)]))
    for away in (False, True):
        student = Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), 1.0)
        student.away = Offload(DoubleMover("weights") if away else None)
        student.away.leave(student.params)
        pupil = Pupil(char_tokenizer(), student.vocabulary, learner=student)
        teacher = SelfTeacher(weights="ema", decay=0.5, context="{prompt}").start(pupil)
        student.update(to_batch(items, 0, 64), ReverseKL(), 1e-2)
        with student.read():
            judged = teacher.score([s.rollout for s in items], Needs(logprobs=True))
        found.append(torch.cat([j.logprobs for j in judged]))
        found.append(torch.cat([p.detach().float().flatten() for p in student.params]))
    assert torch.allclose(found[0], found[2], atol=1e-5)
    assert torch.equal(found[1], found[3])


def test_on_a_cpu_nothing_moves(student_dir: Path) -> None:
    assert mover(True, CPU) is mover(False, CPU) is None
    config = StudentConfig(model=str(student_dir), dtype="float32", offload=True)
    student = Student.load(config, Optim(offload=True), 1.0)
    before = [p.data_ptr() for p in student.params]
    student.update(to_batch(scored(rollouts([(3, 5), (2, 4)])), 0, 64), ReverseKL(), 1e-3)
    assert [p.data_ptr() for p in student.params] == before
    assert not student.away.homes
    assert not student.states.homes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_learner_leaves_the_gpu_and_learns_as_ever(student_dir: Path) -> None:
    batch, found = to_batch(scored(rollouts([(3, 5), (2, 4)])), 0, 64), []
    for away in (False, True):
        config = StudentConfig(model=str(student_dir), dtype="float32", offload=away)
        student = Student.load(config, Optim(offload=away), 1.0)
        for _ in range(3):
            student.update(batch, ReverseKL(), 1e-3)
        states = [v for s in student.optimizer.state.values() for v in s.values() if v.dim()]
        assert {t.device.type for t in (*student.params, *states)} == {"cpu" if away else "cuda"}
        assert isinstance(student.away.mover, Pinned) == away
        found.append([p.detach().cpu() for p in student.params])
    assert all(torch.equal(p, q) for p, q in zip(*found, strict=True))


def test_states_that_are_made_before_the_first_step_are_at_home_from_the_start() -> None:
    (a, b), states = networks(), Offload(DoubleMover("states"))
    one, other = (torch.optim.AdamW(n.parameters(), lr=0.1, fused=True) for n in (a, b))
    prepare(other, list(b.parameters()), states)
    assert all(v.dtype == torch.float64 for s in other.state.values() for v in s.values() if v.dim())
    for network, optimizer, away in ((a, one, Offload()), (b, other, states)):
        network(torch.ones(2, 5)).square().sum().backward()
        step(optimizer, away)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_states_that_are_away_are_read_from_a_checkpoint_to_where_they_are(student_dir: Path, tmp_path: Path) -> None:
    batch, found = to_batch(scored(rollouts([(3, 5), (2, 4)])), 0, 64), []
    for away in (False, True):
        student, again = (
            Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), 1.0) for _ in range(2)
        )
        student.update(batch, ReverseKL(), 1e-2)
        written = save(tmp_path / str(away), 1, student, {}, char_tokenizer(), keep=1)
        again.states = Offload(DoubleMover("states") if away else None)
        again.states.leave(tensors_of(again.optimizer, again.params))
        homes = {id(t): home.data_ptr() for t, home in again.states.homes.items()}
        restore(written, again)
        assert {id(t): home.data_ptr() for t, home in again.states.homes.items()} == homes
        again.update(batch, ReverseKL(), 1e-2)
        found.append(torch.cat([p.detach().flatten() for p in again.params]))
    assert torch.equal(*found)
