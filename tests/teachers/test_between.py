"""A teacher in between: the normalised product of two, nearer to one of them with every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models import heads
from opd.needs import Needs
from opd.run.metrics import read_metrics
from opd.teachers.between import BetweenTeacher
from opd.teachers.local import LocalTeacher
from opd.teachers.none import NoTeacher
from opd.teachers.own import SelfTeacher
from opd.teaching import Pupil, Scorer
from opd.types import Judgement, Pretrained
from tests.teachers.test_routed import assert_logits_agree
from tests.tiny import char_tokenizer, cli_code, rollouts, save_model

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2)]
LOGPROBS = Needs(logprobs=True)


def local(path: Path, **settings: Any) -> LocalTeacher:
    return LocalTeacher(model=str(path), **({"dtype": "float32", "prompt": "student"} | settings))


@pytest.fixture
def learner(student_dir: Path) -> Student:
    return Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), 1.0)


def start(teacher: Any, learner: Student | None) -> Scorer:
    return teacher.start(Pupil(char_tokenizer(), 45, None, learner))


def table(path: Path) -> list[torch.Tensor]:
    """Log-probs [T, V] of a model at each completion's tokens, in float64."""
    student = Student.load(StudentConfig(model=str(path), dtype="float32"), Optim(), 1.0)
    out = []
    for r in rollouts(SHAPES):
        logits = student.model(input_ids=torch.tensor([[*r.prompt.tokens, *r.tokens]])).logits[0]
        out.append(logits[len(r.prompt.tokens) - 1 :][: len(r.tokens)].detach().double().log_softmax(-1))
    return out


def all_of(judged: list[Judgement]) -> torch.Tensor:
    return torch.cat([j.logprobs for j in judged])


@pytest.mark.parametrize("chunk", [45 * 16, 10 * 2**20], ids=["in chunks", "at once"])
def test_it_is_the_normalised_product_of_the_two(
    chunk: int, student_dir: Path, teacher_dir: Path, learner: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", chunk)
    scorer = start(BetweenTeacher(teacher=local(teacher_dir), near=local(student_dir), begin=0.2, steps=8), learner)
    learner.taken, items = 3, rollouts(SHAPES)
    a = 0.2 + 0.8 * 3 / 8
    got = scorer.score(items, Needs(logprobs=True, top_k=4))
    for r, j, near, far in zip(items, got, table(student_dir), table(teacher_dir), strict=True):
        product = (1 - a) * near + a * far
        want = product - product.exp().sum(-1, keepdim=True).log()
        tokens = torch.tensor(r.tokens, dtype=torch.int64)[:, None]
        torch.testing.assert_close(j.logprobs.double(), want.gather(1, tokens)[:, 0], atol=2e-5, rtol=0)
        best = want.topk(4)
        assert j.top_ids is not None
        assert j.state is None
        assert torch.equal(j.top_ids, best.indices)
        torch.testing.assert_close(j.top_logprobs, best.values.float(), atol=2e-5, rtol=0)
    assert_logits_agree(scorer, items)


def test_at_its_ends_it_is_the_one_or_the_other(student_dir: Path, teacher_dir: Path, learner: Student) -> None:
    settings = BetweenTeacher(teacher=local(teacher_dir), near=SelfTeacher(prompt="student", dtype="float32"), steps=4)
    scorer = settings.start(Pupil(char_tokenizer(), 45, Pretrained(str(student_dir)), learner))
    items = rollouts(SHAPES)
    near, far = (all_of(start(local(path), None).score(items, LOGPROBS)) for path in (student_dir, teacher_dir))
    torch.testing.assert_close(all_of(scorer.score(items, LOGPROBS)), near, atol=2e-5, rtol=0)
    for learner.taken in (4, 400):
        torch.testing.assert_close(all_of(scorer.score(items, LOGPROBS)), far, atol=2e-5, rtol=0)
    untrained = start(BetweenTeacher(teacher=local(teacher_dir), near=local(student_dir), steps=4), None)
    torch.testing.assert_close(all_of(untrained.score(items, LOGPROBS)), far, atol=2e-5, rtol=0)


def test_a_batchs_states_are_judged_as_they_were_scored_however_many_steps_it_takes(
    student_dir: Path, teacher_dir: Path, learner: Student
) -> None:
    scorer = start(BetweenTeacher(teacher=local(teacher_dir), near=local(student_dir), steps=4), learner)
    (judged,) = scorer.score(rollouts([(3, 5)]), Needs(logprobs=True, distribution=True))
    assert judged.state is not None
    before = scorer.logits(judged.state)
    learner.taken = 2
    assert torch.equal(scorer.logits(judged.state), before)
    (later,) = scorer.score(rollouts([(3, 5)]), Needs(logprobs=True, distribution=True))
    assert later.state is not None
    assert not torch.equal(scorer.logits(later.state), before)


def between(config: Path, teacher_dir: Path) -> None:
    """Give a config this teacher, who is at its end after four steps."""
    text = config.read_text().replace("  - _self_", "  - override teacher: between\n  - _self_", 1)
    lines = [line for line in text.splitlines() if not line.startswith("teacher:")]
    own = f"teacher: {{teacher: {{model: '{teacher_dir}'}}, near: {{prompt: student}}, steps: 4}}"
    config.write_text("\n".join([*lines, own, ""]))


@pytest.mark.parametrize("taken", [["source=filtered", "source.lowest=2"], ["optim.steps_per_batch=3"]])
def test_it_is_as_far_after_as_many_steps_of_the_run_whatever_optimizer_steps_each_takes(
    taken: list[str], config: Path, teacher_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it none, of which all is left out, be it another number in each part of the run."""
    shares: list[float] = []
    share = BetweenTeacher.share

    def seen(settings: BetweenTeacher, steps: int) -> float:
        shares.append(share(settings, steps))
        return shares[-1]

    monkeypatch.setattr(BetweenTeacher, "share", seen)
    between(config, teacher_dir)
    run = [
        f"run={tmp_path / 'run'}",
        "eval.every=0",
        "data.tasks.arithmetic._target_=tests.sources.test_filtered.Parity",
    ]
    assert cli_code(["train", f"conf={config}", "-q", "steps=2", *run]) == 0
    assert cli_code(["train", "--resume", "-q", "steps=4", *run[:2], *taken]) == 0
    assert list(dict.fromkeys(shares)) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_smaller_vocabulary_is_that_of_both(student_dir: Path, tmp_path: Path, learner: Student) -> None:
    small = save_model(tmp_path, "llama", seed=3, tied=False, vocab=40)
    scorer = start(BetweenTeacher(teacher=local(small), near=local(student_dir), begin=0.5, steps=4), learner)
    assert_logits_agree(scorer, rollouts(SHAPES, vocab=40))
    beyond = rollouts([(2, 3)], vocab=45)[0]
    (judged,) = scorer.score([type(beyond)(beyond.prompt, (44, 3, 43), beyond.logprobs, False)], LOGPROBS)
    assert (judged.logprobs[[0, 2]] < -40).all()
    assert judged.logprobs[1] > -20


def test_what_has_no_distribution_or_would_go_back_is_refused(teacher_dir: Path) -> None:
    far = local(teacher_dir)
    with pytest.raises(ValueError, match=r"near=none: it does not give its distribution; allowed is .*local"):
        BetweenTeacher(teacher=far, near=NoTeacher(), steps=3)
    with pytest.raises(ValueError, match=r"begin=0\.5: allowed is at most end=0\.25"):
        BetweenTeacher(teacher=far, near=far, begin=0.5, end=0.25, steps=3)


def test_a_run_that_goes_on_has_the_teacher_of_one_that_was_never_broken_off(
    config: Path, teacher_dir: Path, tmp_path: Path
) -> None:
    between(config, teacher_dir)
    run = [f"conf={config}", "-q", "checkpoint.every=2", "eval.every=0", "log.exact_kl=true"]
    assert cli_code(["train", *run, "steps=4", f"run={tmp_path / 'whole'}"]) == 0
    assert cli_code(["train", *run, "steps=2", f"run={tmp_path / 'part'}"]) == 0
    assert cli_code(["train", "--resume", "steps=4", f"run={tmp_path / 'part'}"]) == 0
    rows = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "part"))
    whole, part = ([row["kl/exact"] for row in found if row["step"]] for found in rows)
    assert abs(whole[0]) < 1e-5 < 0.01 < min(whole[1:])  # at first it is the student
    assert part == whole
