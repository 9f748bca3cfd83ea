"""A record of completions: each prompt is written once, by who began, and a second epoch asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from opd.needs import Needs
from opd.run.metrics import read_metrics
from opd.sources.recorded import Recorded
from opd.teachers.cached import CachedTeacher
from opd.teachers.local import LocalTeacher
from opd.teaching import Pupil
from opd.types import Example, Prompt, Sampling, UserError
from opd.writing import Desk, Sampler, Writer
from tests.sources.desks import STOP, TableEngine, make_desk, tables
from tests.tiny import char_tokenizer, cli_code

SAMPLING = Sampling(max_tokens=6, n=3, stop=(STOP,), seed=5)


def prompts(*firsts: int) -> list[Prompt]:
    return [Prompt(Example(str(i), ({"role": "user", "content": "1+1"},)), (i, 7)) for i in firsts]


def none(path: str) -> Sampler:
    raise AssertionError("nobody is to be asked")


def start(folder: Path, model: Path, engine: Sampler | None) -> Writer:
    desk: Desk = replace(make_desk(tables(1)[0]), model_engine=none if engine is None else lambda path: engine)
    return Recorded(path=str(folder), model=str(model)).start(desk)


@pytest.fixture
def engine() -> TableEngine:
    return tables()[0]


def test_a_prompt_that_comes_again_is_read_back_as_it_was_written(
    engine: TableEngine, tmp_path: Path, student_dir: Path
) -> None:
    writer, asked = start(tmp_path / "r", student_dir, engine), prompts(3, 4, 5)
    first = writer.sample(asked, SAMPLING)
    assert len(first) == len(engine.shown) == 9
    assert {r.writers for r in first} == {("student",)}
    again = start(tmp_path / "r", student_dir, None)
    for known in (writer, again):
        got = known.sample(asked[::-1], replace(SAMPLING, seed=99))
        assert {r.writers for r in got} == {()}  # it costs nothing
        assert [replace(r, writers=("student",)) for r in got] == [*first[6:], *first[3:6], *first[:3]]
    assert len(engine.shown) == 9


def test_what_is_drawn_does_not_depend_on_what_was_there_before(
    engine: TableEngine, tmp_path: Path, student_dir: Path
) -> None:
    def seen(firsts: Sequence[int], name: str) -> Writer:
        writer = start(tmp_path / name, student_dir, SeededByPlace(engine.table))
        writer.sample(prompts(*firsts), replace(SAMPLING, seed=1))
        return writer

    one, two = seen((3,), "a"), seen((8,), "b")
    asked = prompts(3, 4, 4, 5)
    a, b = (writer.sample(asked, SAMPLING) for writer in (one, two))
    assert [r.tokens for r in a[3:]] == [r.tokens for r in b[3:]]
    assert [r.tokens for r in a[3:6]] == [r.tokens for r in a[6:9]]  # twice in one step: written once
    assert [len(r.writers) for r in a] == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]


class SeededByPlace(TableEngine):
    """An engine that goes by the places that it is told."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list:
        owners = [p for p in prompts for _ in range(sampling.n)]
        return [self._one(p, sampling, place) for p, place in zip(owners, sampling.places, strict=True)]


def test_other_settings_of_sampling_are_other_completions(
    engine: TableEngine, tmp_path: Path, student_dir: Path
) -> None:
    writer = start(tmp_path / "r", student_dir, engine)
    for i, sampling in enumerate((SAMPLING, replace(SAMPLING, n=1), replace(SAMPLING, temperature=0.5))):
        writer.sample(prompts(3), sampling)
        assert len(list((tmp_path / "r").glob("*.parquet"))) == i + 1


def test_a_trial_leaves_nothing_behind_and_asks_nobody_about_what_is_there(
    engine: TableEngine, tmp_path: Path, student_dir: Path
) -> None:
    trial = replace(SAMPLING, n=1, max_tokens=2, seed=9, trial=SAMPLING)
    writer = start(tmp_path / "r", student_dir, engine)
    short = writer.sample(prompts(3, 4), trial)
    assert [len(r.tokens) <= 2 for r in short] == [True] * 2
    assert not (tmp_path / "r").exists()
    alone = start(tmp_path / "alone", student_dir, engine).sample(prompts(3, 4), SAMPLING)
    assert writer.sample(prompts(3, 4), SAMPLING) == alone
    assert len(start(tmp_path / "r", student_dir, None).sample(prompts(4, 3), trial)) == 2


def test_a_record_of_another_model_or_a_damaged_one_is_refused(
    engine: TableEngine, tmp_path: Path, student_dir: Path, teacher_dir: Path
) -> None:
    start(tmp_path / "r", student_dir, engine).sample(prompts(3), SAMPLING)
    with pytest.raises(UserError, match=r"source\.path=.*was written by another model; name another folder"):
        start(tmp_path / "r", teacher_dir, engine)
    (file,) = (tmp_path / "r").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"source\.path=.*parquet is damaged \(.*; remove it"):
        start(tmp_path / "r", student_dir, engine)
    with pytest.raises(UserError, match=r"source\.path=.*this is a file"):
        start(file, student_dir, engine)
    with pytest.raises(UserError, match="no other model than the student can write here"):
        Recorded(path=str(tmp_path), model="m").start(make_desk(engine))


def test_a_second_epoch_asks_neither_the_teacher_nor_who_began(
    engine: TableEngine, tmp_path: Path, student_dir: Path, teacher_dir: Path
) -> None:
    teacher = LocalTeacher(model=str(teacher_dir), dtype="float32", prompt="student")
    cached, needs = CachedTeacher(teacher=teacher, path=str(tmp_path / "t")), Needs(logprobs=True)
    said = []
    for epoch in range(2):
        scorer = cached.start(Pupil(char_tokenizer(), 45))
        rollouts = start(tmp_path / "r", student_dir, None if epoch else engine).sample(prompts(3, 4, 5), SAMPLING)
        said.append([j.logprobs.tolist() for j in scorer.score(rollouts, needs)])
        assert (scorer.scorer is None) == bool(epoch)  # the teacher is not even loaded
    assert said[0] == said[1]


def test_a_run_on_a_record_trains_and_its_second_epoch_asks_nobody(
    config: Path, teacher_dir: Path, tmp_path: Path
) -> None:
    text = config.read_text().replace("  - _self_", "  - override teacher: cached\n  - _self_", 1)
    lines = [line for line in text.splitlines() if not line.startswith("teacher:")]
    inner = f"{{model: '{teacher_dir}', dtype: float32, prompt: student}}"
    config.write_text("\n".join([*lines, f"teacher: {{path: '{tmp_path / 't'}', teacher: {inner}}}", ""]))
    run = [
        f"conf={config}", "-q", "steps=4", "eval.every=0", "data.tasks.arithmetic.size=16", "source=recorded",
        f"source.path={tmp_path / 'r'}", "optim.lr=3e-2", f"run={tmp_path / 'run'}",
    ]  # fmt: skip
    assert cli_code(["train", *run]) == 0
    rows = {row["step"]: row for row in read_metrics(tmp_path / "run" / "metrics.jsonl")}
    for cost in ("cost/generate_tokens", "cost/flops_teacher"):
        spent = [rows[step][cost] for step in range(1, 5)]
        assert 0 < spent[0] < spent[1] == spent[2] == spent[3]
    assert all("kl/engine_gap" in rows[step] for step in range(1, 5))
    assert rows[4]["kl/engine_gap"] > 0.01  # what has been learned, which is no fault
    files = [pq.read_table(path).num_rows for path in (tmp_path / "r").glob("*.parquet")]
    assert files == [16] * 2  # of two steps, and none of the preflight
