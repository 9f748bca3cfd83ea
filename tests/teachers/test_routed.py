"""Several teachers: who judges what, what they share in memory, and that logits agree with log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from opd.models import heads
from opd.needs import Needs, Provides
from opd.teachers.local import LocalTeacher
from opd.teachers.none import NoTeacher
from opd.teachers.own import SelfTeacher
from opd.teachers.routed import RoutedTeacher
from opd.teaching import Pupil, Scorer
from opd.types import Pretrained, Rollout, UserError
from tests.tiny import char_tokenizer, rollouts, save_model

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2)]
BOTH = Needs(logprobs=True, distribution=True)
ALL = Needs(logprobs=True, distribution=True, top_k=3)


def local(path: Path, **settings: Any) -> LocalTeacher:
    return LocalTeacher(model=str(path), **({"dtype": "float32", "prompt": "student"} | settings))


def start(teacher: Any) -> Scorer:
    return teacher.start(Pupil(char_tokenizer(), 45))


def examples(tasks: Sequence[str] = ("a", "b"), vocab: int = 45) -> list[Rollout]:
    items = rollouts(SHAPES, vocab=vocab)
    tasks = [tasks[i % len(tasks)] for i in range(len(items))]
    changed = [replace(r.prompt.example, task=t, meta={"level": t * 2}) for r, t in zip(items, tasks, strict=True)]
    return [replace(r, prompt=replace(r.prompt, example=e)) for r, e in zip(items, changed, strict=True)]


def assert_logits_agree(scorer: Scorer, items: Sequence[Rollout], normalized: bool = True) -> None:
    judged = scorer.score(items, BOTH)
    states, tokens = torch.cat([j.state for j in judged]), torch.tensor([t for r in items for t in r.tokens])
    logits = scorer.logits(states)
    found = heads.gather_logprobs(logits, tokens) if normalized else logits.gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(found, torch.cat([j.logprobs for j in judged]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("by", "double"), [("task", 1), ("level", 2)])
def test_every_example_is_judged_by_its_own_teacher(student_dir: Path, teacher_dir: Path, by: str, double: int) -> None:
    one, two, items = local(student_dir), local(teacher_dir), examples()
    routed = start(RoutedTeacher(teachers={"one": one, "two": two}, by=by, routes={"a" * double: "one"}, default="two"))
    alone = [start(one).score(items, ALL), start(two).score(items, ALL)]
    for i, j in enumerate(routed.score(items, ALL)):
        want = alone[i % 2][i]
        torch.testing.assert_close(j.logprobs, want.logprobs, atol=1e-5, rtol=0)
        assert j.top_ids is not None
        assert want.top_ids is not None
        assert torch.equal(j.top_ids, want.top_ids)
    assert_logits_agree(routed, items)
    assert_logits_agree(routed, examples(["b"]))


def test_a_smaller_vocabulary_is_that_of_all(student_dir: Path, tmp_path: Path) -> None:
    small = save_model(tmp_path, "llama", seed=3, tied=False, vocab=40)
    teachers = {"one": local(student_dir), "two": local(small)}
    items = examples(vocab=40)
    routed = start(RoutedTeacher(teachers=teachers, routes={"a": "one", "b": "two"}))
    assert_logits_agree(routed, items)
    judged = routed.score(items, BOTH)
    assert judged[0].state is not None
    assert routed.logits(judged[0].state).shape[1] == 40
    weighted = start(RoutedTeacher(teachers=teachers, weights={"one": 1, "two": 1}))
    assert_logits_agree(weighted, items, normalized=False)


def test_weights_sum_the_log_probs_and_the_reverse_kls(student_dir: Path, teacher_dir: Path) -> None:
    one, two, items = local(student_dir), local(teacher_dir), examples()
    weighted = start(RoutedTeacher(teachers={"one": one, "two": two}, weights={"one": 3, "two": 1}))
    a, b = start(one), start(two)
    sides = zip(weighted.score(items, BOTH), a.score(items, BOTH), b.score(items, BOTH), strict=True)
    for j, x, y in sides:
        torch.testing.assert_close(j.logprobs, 0.75 * x.logprobs + 0.25 * y.logprobs, atol=1e-5, rtol=0)
        assert j.state is not None
        assert x.state is not None
        assert y.state is not None
        log_q = 0.75 * a.logits(x.state).log_softmax(-1) + 0.25 * b.logits(y.state).log_softmax(-1)
        torch.testing.assert_close(weighted.logits(j.state).softmax(-1), log_q.softmax(-1), atol=1e-5, rtol=0)
        pi = torch.rand(log_q.shape).softmax(-1)  # KL(pi||q) differs from the weighted KLs by log Z, whatever pi is
        gap = (pi * (log_q - log_q.log_softmax(-1))).sum(-1)
        torch.testing.assert_close(gap, log_q.logsumexp(-1), atol=1e-5, rtol=0)
    assert_logits_agree(weighted, items, normalized=False)


def test_one_model_is_loaded_once(teacher_dir: Path, student_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from opd.models import loading

    loads = []
    real = loading.load_causal_lm
    monkeypatch.setattr(loading, "load_causal_lm", lambda path, *rest: loads.append(path) or real(path, *rest))
    same, told = local(teacher_dir), local(teacher_dir, prompt="own", system="hello", temperature=2.0)
    teachers = {"x": same, "y": local(teacher_dir), "z": told, "unused": local(student_dir)}
    routed = start(RoutedTeacher(teachers=teachers, routes={"a": "x", "b": "y", "c": "z"}))
    assert loads == [Pretrained(str(teacher_dir))]
    assert_logits_agree(routed, examples("abc"))
    texts = [char_tokenizer().decode(ids) for ids in routed.read([r.prompt for r in examples("c")])]
    assert texts == ["hello1+1:"] * 5
    alone = start(told).score(examples("c"), BOTH)
    for j, want in zip(routed.score(examples("c"), BOTH), alone, strict=True):
        torch.testing.assert_close(j.logprobs, want.logprobs, atol=1e-5, rtol=0)
    assert RoutedTeacher(teachers=teachers, routes={"a": "x", "b": "y", "c": "z"}).checkpoint() == Pretrained(
        str(teacher_dir)
    )


def test_an_unknown_route_is_an_error_before_the_first_step(teacher_dir: Path) -> None:
    routed: Any = start(RoutedTeacher(teachers={"one": local(teacher_dir)}, routes={"algebra": "one"}))
    with pytest.raises(UserError, match="task=algebrra of example 0, did you mean algebra"):
        routed.admit([r.prompt.example for r in examples(["algebrra"])])
    other: Any = start(RoutedTeacher(teachers={"one": local(teacher_dir)}, by="levle", default="one", routes={}))
    with pytest.raises(UserError, match=r"teacher\.by=levle: no column .* did you mean level"):
        other.admit([examples()[0].prompt.example])


def test_what_learns_inside_is_saved_under_its_name(student_dir: Path) -> None:
    from opd.learner.config import StudentConfig
    from opd.learner.optim import Optim
    from opd.learner.student import Student

    student = Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), 1.0)
    own = SelfTeacher(weights="ema", decay=0.9, context="{prompt}!")
    teacher = RoutedTeacher(teachers={"own": own, "one": local(student_dir)}, weights={"own": 1, "one": 1})
    scorer: Any = teacher.start(Pupil(char_tokenizer(), 45, Pretrained(str(student_dir)), student))
    scorer.load_state({name: 0 * value for name, value in scorer.state().items()})
    assert all(name.startswith("own/") and not value.any() for name, value in scorer.state().items())
    assert teacher.checkpoint() is None


def test_it_provides_what_all_of_them_do(teacher_dir: Path) -> None:
    teachers = {"one": local(teacher_dir), "none": NoTeacher()}
    assert RoutedTeacher(teachers=teachers, routes={"a": "one", "b": "none"}).provides == Provides()
    assert RoutedTeacher(teachers=teachers, routes={"a": "one"}).provides == teachers["one"].provides
    assert RoutedTeacher(teachers=teachers, weights={"one": 1}).provides == Provides(logprobs=True, distribution=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of routes and weights"),
        ({"routes": {"a": "one"}, "weights": {"one": 1}}, "exactly one of routes and weights"),
        ({"routes": {"a": "onne"}}, "routes.a=onne: no such teacher, did you mean one"),
        ({"weights": {"two": 1}}, "weights.two=two: no such teacher"),
        ({"weights": {"one": 1}, "default": "one"}, "default=one: it is not read with weights"),
        ({"routes": {}}, "leads to no teacher"),
        ({"routes": {"a": "one"}, "teachers": {"one": 3}}, "teachers.one=3: allowed is a mapping"),
    ],
)
def test_settings_that_do_not_say_who_judges_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RoutedTeacher(**({"teachers": {"one": NoTeacher()}} | settings))
