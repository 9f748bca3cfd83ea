"""The cache: what comes out is what went in, who wrote it is checked, and a killed writer leaves it readable."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from opd.needs import Needs
from opd.teachers.between import BetweenTeacher
from opd.teachers.cached import CachedTeacher
from opd.teachers.local import LocalTeacher
from opd.teachers.none import NoTeacher
from opd.teachers.own import SelfTeacher
from opd.teachers.routed import RoutedTeacher
from opd.teachers.shelf import Entry, Shelf
from opd.teaching import Pupil
from opd.types import UserError
from tests.tiny import char_tokenizer, rollouts, save_model

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2)]
TOP = Needs(logprobs=True, top_k=3)


def start(
    path: Path, model: Path, tokenizer: Any = None, *, top_k: int = 3, readonly: bool = False, **local: Any
) -> Any:
    teacher = LocalTeacher(model=str(model), **({"dtype": "float32", "prompt": "student"} | local))
    cached = CachedTeacher(teacher=teacher, path=str(path), top_k=top_k, readonly=readonly)
    return cached.start(Pupil(tokenizer or char_tokenizer(), 45))


def test_what_is_read_back_is_what_the_teacher_said(teacher_dir: Path, tmp_path: Path) -> None:
    items = rollouts(SHAPES)
    want = LocalTeacher(model=str(teacher_dir), dtype="float32", prompt="student").start(Pupil(char_tokenizer(), 45))
    first = start(tmp_path / "c", teacher_dir)
    assert first.scorer is None
    written = first.score(items, TOP)
    again = start(tmp_path / "c", teacher_dir)
    for a, b, j in zip(written, again.score(items, TOP), want.score(items, TOP), strict=True):
        for name in ("logprobs", "top_ids", "top_logprobs"):
            assert torch.equal(getattr(a, name), getattr(b, name))
            assert getattr(b, name).shape == getattr(j, name).shape
            assert getattr(b, name).dtype == getattr(j, name).dtype
            torch.testing.assert_close(getattr(b, name), getattr(j, name), atol=1e-5, rtol=0)
    assert again.scorer is None, "a full cache loads no weights"
    assert "4 completions read, 0 scored" in again.notes([])[0]
    assert again.score(items, Needs(logprobs=True, top_k=2))[0].top_ids.shape == (5, 2)
    assert again.score(items, Needs(logprobs=True))[0].top_ids is None


def test_only_what_is_missing_is_scored(teacher_dir: Path, tmp_path: Path) -> None:
    items = rollouts(SHAPES)
    start(tmp_path / "c", teacher_dir).score(items[:2], TOP)
    scorer = start(tmp_path / "c", teacher_dir)
    scorer.score([*items, items[3]], TOP)
    assert (scorer.found, scorer.scored) == (2, 2)
    other = [replace(r, prompt=replace(r.prompt, tokens=(*r.prompt.tokens, 7))) for r in items]
    scorer.score(other, TOP)
    assert scorer.scored == 6, "the same completions after other prompts are other entries"


def test_another_teacher_tokenizer_or_template_is_refused_by_name(teacher_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "c"
    start(path, teacher_dir).score(rollouts(SHAPES), TOP)
    trained = save_model(tmp_path / "trained", "llama", seed=7, tied=False, hidden=96)  # same sizes, other weights
    with pytest.raises(UserError, match="written with another teacher"):
        start(path, trained)
    with pytest.raises(UserError, match="written with another teacher"):
        start(path, teacher_dir, temperature=2.0)
    start(path, teacher_dir, micro_tokens=7)
    model = save_model(tmp_path / "model", "llama", seed=2, tied=False, hidden=96)  # the same weights
    start(path, model)
    tokenizer = char_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}?"
    tokenizer.save_pretrained(model)
    with pytest.raises(UserError, match="written with another chat template"):
        start(path, model)
    other = char_tokenizer("0123456789+-*=;: abcdefghijklmnopqrstuvwxyz!")
    other.save_pretrained(model)
    with pytest.raises(UserError, match="written with another tokenizer"):
        start(path, model, other)
    with pytest.raises(UserError, match=r"top_k=5: .* keeps 3"):
        start(path, teacher_dir, top_k=5)
    with pytest.raises(UserError, match="this is a file"):
        start(model / "config.json", teacher_dir)


def test_a_cache_of_files_that_keep_more_and_fewer_likeliest_tokens_can_be_opened_as_what_is_said_of_it(
    tmp_path: Path,
) -> None:
    def save(k: int, key: str) -> None:
        ids, logprobs = np.arange(2 * k).reshape(2, k).astype(np.int32), -np.ones((2, k), np.float32)
        own = -np.ones(2, np.float32)
        Shelf(tmp_path, {"teacher": "abc"}, k, {}).add({key: Entry(own, ids, logprobs) if k else Entry(own)})

    def kept(k: int) -> dict[str, int]:
        shelf = Shelf.open(tmp_path, {"teacher": "abc"}, k)
        found = [0 if e.top_ids is None else e.top_ids.shape[1] for e in shelf.entries.values()]
        assert shelf.top_k == min(found)
        return dict(zip(shelf.entries, found, strict=True))

    for k, key in enumerate("abc", 1):
        save(k, key)
    assert set(kept(1).items()) == set(kept(0).items()) == {("a", 1), ("b", 1), ("c", 1)}
    save(0, "d")
    assert set(kept(0).values()) == {0}
    with pytest.raises(UserError, match=r"top_k=2: .* keeps 0; allowed is at most that, or move ") as refused:
        kept(2)
    for name in re.findall(r"\w+\.parquet", str(refused.value)):
        (tmp_path / name).unlink()
    assert set(kept(2).items()) == {("b", 2), ("c", 2)}
    with pytest.raises(UserError, match=r"top_k=5: .* keeps 2; allowed is at most that, or name another folder"):
        kept(5)


def test_a_readonly_cache_leaves_the_students_own_words_unjudged(teacher_dir: Path, tmp_path: Path) -> None:
    items = rollouts(SHAPES)
    start(tmp_path / "c", teacher_dir).score(items[:2], TOP)
    scorer = start(tmp_path / "c", teacher_dir, readonly=True)
    judged = scorer.score(items, TOP)
    assert [bool(j.logprobs.isnan().any()) for j in judged] == [False, False, False, True, True]
    foreign = [replace(r, logprobs=(float("nan"),) * len(r.tokens)) for r in items]
    with pytest.raises(UserError, match="2 of 5 completions are not in it"):
        scorer.score(foreign, TOP)
    assert scorer.scorer is None


WRITER = """
import sys, numpy as np
from pathlib import Path
from opd.teachers.shelf import Entry, Shelf
shelf = Shelf.open(Path(sys.argv[1]), {"teacher": "t"}, 0)
for i in range(10**6):
    shelf.add({f"{i}-{k}": Entry(np.full(1000, -i, np.float32)) for k in range(8)})
    print(i, flush=True)
"""


def test_a_killed_writer_loses_at_most_its_last_batch(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "c")], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    done = 20 + len(writer.stdout.read().split())
    writer.wait()
    (tmp_path / "c" / ".half.parquet.1.writing").write_bytes(b"PAR1 cut")
    entries = Shelf.open(tmp_path / "c", {"teacher": "t"}, 0).entries
    assert 8 * done <= len(entries) <= 8 * (done + 1)
    assert all((entries[f"{i}-7"].logprobs == -i).all() for i in range(done))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-40]), "is damaged ("),
        (lambda file: file.write_bytes(b""), "is damaged ("),
        (lambda file: write(file, np.full(5, np.inf)), "has log-probs that are none"),
        (lambda file: write(file, np.full(5, 0.5)), "has log-probs that are none"),
        (lambda file: write(file, np.full(4, -0.5)), "has 4 log-probs for 5 tokens"),
    ],
)
def test_a_damaged_file_is_named(teacher_dir: Path, tmp_path: Path, harm: Any, says: str) -> None:
    start(tmp_path / "c", teacher_dir).score(rollouts(SHAPES), TOP)
    (file,) = (tmp_path / "c").glob("*.parquet")
    harm(file)
    with pytest.raises(UserError, match=re.escape(says)) as error:
        start(tmp_path / "c", teacher_dir).score(rollouts(SHAPES), TOP)
    assert str(tmp_path / "c") in str(error.value)


def write(file: Path, logprobs: np.ndarray) -> None:
    """Put other log-probs into the first entry of a file, and three likeliest tokens into each place."""
    table = pq.read_table(file)
    values = [logprobs.tolist(), *table["logprobs"].to_pylist()[1:]]
    ids, theirs = ([each * 3 * len(row) for row in values] for each in ([1], [-1.0]))
    tops = {"top_ids": pa.array(ids, pa.list_(pa.int32())), "top_logprobs": pa.array(theirs, pa.list_(pa.float32()))}
    columns = {"key": table["key"], "logprobs": pa.array(values, pa.list_(pa.float32()))} | tops
    pq.write_table(pa.table(columns).replace_schema_metadata(table.schema.metadata), file)


def several(path: Path, one: Path, two: Path, **how: Any) -> Any:
    """A started cache of two teachers, and these without it."""
    local = {
        name: LocalTeacher(model=str(model), dtype="float32", prompt="student")
        for name, model in {"one": one, "two": two}.items()
    }
    routed, pupil = RoutedTeacher(teachers=local, **how), Pupil(char_tokenizer(), 45)
    return CachedTeacher(teacher=routed, path=str(path)).start(pupil), routed.start(pupil)


def test_the_same_ids_that_two_teachers_judge_are_two_entries(
    student_dir: Path, teacher_dir: Path, tmp_path: Path
) -> None:
    (item,) = rollouts([(3, 5)])
    asked = [
        replace(item, prompt=replace(item.prompt, example=replace(item.prompt.example, id=task, task=task)))
        for task in ("a", "b")
    ]
    routes = {"a": "one", "b": "two"}
    for _ in range(2):  # written, and read back
        kept, plain = several(tmp_path / "c", student_dir, teacher_dir, routes=routes)
        for found, want in zip(kept.score(asked, TOP), plain.score(asked, TOP), strict=True):
            torch.testing.assert_close(found.logprobs, want.logprobs, atol=1e-5, rtol=0)
    assert (kept.found, kept.scored) == (2, 0)


@pytest.mark.parametrize("how", [{"routes": {"0": "one"}, "default": "two"}, {"weights": {"one": 1.0, "two": 1.0}}])
def test_of_several_teachers_one_with_other_weights_is_another(
    how: dict[str, Any], teacher_dir: Path, tmp_path: Path
) -> None:
    one = save_model(tmp_path / "one", "llama", seed=5, tied=False, hidden=96)
    several(tmp_path / "c", one, teacher_dir, **how)[0].score(rollouts(SHAPES), TOP)
    several(tmp_path / "c", one, teacher_dir, **how)
    save_model(tmp_path / "one", "llama", seed=6, tied=False, hidden=96)  # in the same place
    with pytest.raises(UserError, match="written with another teacher"):
        several(tmp_path / "c", one, teacher_dir, **how)


def test_teachers_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    own, stays = SelfTeacher(weights="base"), LocalTeacher(model="m")
    between = BetweenTeacher(teacher=stays, near=stays, steps=3)
    for changing in (own, between, RoutedTeacher(teachers={"a": stays, "b": own}, weights={"a": 1, "b": 1})):
        with pytest.raises(ValueError, match=r"what it says changes in a run; allowed is a teacher that stays"):
            CachedTeacher(teacher=changing, path=str(tmp_path))
    with pytest.raises(ValueError, match=r"teacher=none: it does not give log-probs.*2 likeliest"):
        CachedTeacher(teacher=NoTeacher(), path=str(tmp_path), top_k=2)
