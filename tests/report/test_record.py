"""What is read of a run's folder, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.plain import flat
from opd.report.record import default_place, differences, find_runs, read_records
from opd.types import UserError
from tests.report.made import record, save_run

ROWS = [{"step": 0, "kl/exact": 1.0}, {"step": 1, "kl/exact": "nan"}]


def test_settings_are_named_by_their_full_keys() -> None:
    nested = {"optim": {"lr": 1e-3, "betas": [0.9, 0.95]}, "log": {"trackers": {}}, "lora": None, "name": "a b"}
    assert dict(flat(nested)) == {
        "optim.lr": "0.001", "optim.betas": "[0.9, 0.95]", "log.trackers": "{}", "lora": "null", "name": "a b",
    }  # fmt: skip


def test_only_settings_that_differ_are_named_and_missing_ones_have_a_dash(tmp_path: Path) -> None:
    one = record(tmp_path / "one", ROWS, settings="name: x\noptim: {lr: 0.1}\n")
    two = record(tmp_path / "two", ROWS, settings="name: x\noptim: {lr: 0.2, eps: 1}\n")
    assert differences([one, two]) == {"optim.lr": ["0.1", "0.2"], "optim.eps": ["-", "1"]}


def test_a_run_that_is_still_going_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", ROWS)
    with run.metrics.open("a") as file:
        file.write('{"step": 2, "kl/ex')
    assert [row["step"] for row in read_records([run])[0].rows] == [0, 1]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("metrics.jsonl", b"", "no step yet"),
        ("metrics.jsonl", b'\xff\xfe{"step": 1}\n', "line 1: .* not UTF-8"),
        ("metrics.jsonl", b"[1]\n", "line 1: .* not an object"),
        ("metrics.jsonl", b'{"step": 0}\n{"step": 1, "kl/ex{"step": 2}\n', "line 2: .* not JSON"),
        ("config.yaml", b"a: [", "config.yaml"),
        ("config.yaml", b"", "config.yaml: it "),
        ("config.yaml", b"junk", "config.yaml: it "),
        ("config.yaml", b"name: \xe9\n", "config.yaml"),
        ("env.json", b"{", "env.json"),
        ("env.json", b"[]", "env.json"),
        ("overrides.txt", b"\xff", "overrides.txt"),
        ("eval/final_before.json", b"[]", "final_before.json: not the figures"),
        ("eval/final_before.json", b"null", "final_before.json: not the figures"),
        ("eval/final_before.json", b"\xff", "final_before.json: not the figures"),
        ("eval/final_before.json", b'{"name": "x", "metrics": {}}', "final_before.json: not the figures"),
        ("eval/final_before.json", b'{"name": "x", "metrics": {}, "sampling": {"n": 1}}', "temperature"),
    ],
)
def test_a_run_that_cannot_be_read_is_a_mistake_of_one_line(file: str, text: bytes, says: str, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", ROWS)
    run.evals.mkdir()
    (run.path / file).write_bytes(text)
    with pytest.raises(UserError, match=says) as error:
        read_records([run])
    assert str(run.path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "Error" not in str(error.value)  # no word of Python's


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / folder / "run", ROWS) for folder in ("a", "b")]
    assert [r.name for r in read_records(runs)] == [str(run.path) for run in runs]


def test_the_page_goes_into_the_run_or_the_folder_of_several(tmp_path: Path) -> None:
    one, two, far = (save_run(tmp_path / path, ROWS) for path in ("a/one", "a/two", "b/far"))
    assert default_place([one]) == tmp_path / "a/one/report.html"
    assert default_place([one, two]) == tmp_path / "a/report.html"
    with pytest.raises(UserError, match="--out"):
        default_place([one, far])


def test_a_run_that_is_named_twice_is_taken_once(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", ROWS)
    assert find_runs([str(run.path), f"run={run.path}"]) == [run]
