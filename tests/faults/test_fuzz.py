"""Whatever bytes or texts the readers are given, they read them or say why not: nothing else escapes.

FUZZ=100000 in the environment tries so many of each; `python -m tests.faults fuzz` goes on for as long as it is told.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opd.config.bounds import check_file
from opd.config.files import read as read_config
from opd.config.mistakes import one_line
from opd.config.overrides import parse
from opd.run.metrics import read_metrics
from opd.tasks.readers import read as read_rows
from opd.teachers.answers import judgement, rows_of
from opd.teachers.chosen import chosen
from opd.teachers.said import Cards, Completion, Generated, Tokenized, read
from opd.types import UserError
from tests.faults.fuzz import changed, escaped
from tests.faults.specimens import OWN, WRITTEN, readers

LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20)
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
ROWS = st.lists(
    st.none() | st.dictionaries(st.integers(-2, 60).map(str), st.fixed_dictionaries({"logprob": LEAVES})), max_size=4
)
BYTES = st.binary(max_size=200) | ANY.map(lambda value: json.dumps(value).encode())
often = settings(
    max_examples=int(os.environ.get("FUZZ", "150")), deadline=None, suppress_health_check=list(HealthCheck)
)


def tried(work: Any, *given: Any) -> bool:
    """Do it; whether it has ended, or told a mistake in words: whatever else it raises is for the test."""
    try:
        work(*given)
    except UserError as error:
        return bool(str(error).strip())
    return True


@often
@given(st.binary(max_size=300) | ANY.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"data": ' * 100_000)
def test_any_answer_of_a_server_is_read_or_refused(data: bytes) -> None:
    for kind in (Cards, Tokenized, Completion, Generated):
        assert tried(read, kind, data)


@often
@given(ROWS)
def test_log_probs_of_any_kind_are_read_or_refused(rows: list[Any]) -> None:
    data = json.dumps({"choices": [{"prompt_logprobs": rows}]}).encode()

    def work() -> None:
        found = rows_of(data, len(rows))
        judged = judgement(found[1:], [3] * len(found[1:]), 45, 45, 2)
        assert bool((judged.logprobs <= 0).all())
        assert bool((judged.top_logprobs <= 0).all())

    if len(rows) > 1:
        assert tried(work)


@often
@given(ANY | st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", max_size=300))
def test_any_array_is_read_or_refused(value: Any) -> None:
    assert tried(chosen, json.dumps({"prompt_token_id_logprobs": value}).encode(), 2, 3)


@often
@given(
    st.text(max_size=60) | st.tuples(st.sampled_from(["seed", "a.b", "+x", "~y"]), st.text(max_size=60)).map("=".join)
)
@example("seed=" + "9" * 5000)
@example("seed=" + "[" * 5000)
def test_any_override_is_read_or_refused(text: str) -> None:
    assert tried(parse, text)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "csv.zst"])
def test_any_file_of_rows_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{kind}"

    @often
    @given(BYTES | st.text(max_size=200).map(str.encode))
    def check(data: bytes) -> None:
        file.write_bytes(data)
        assert tried(lambda: list(read_rows(file, ["prompt"])))

    check()


def test_any_config_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    signs = [
        "a: ",
        "b",
        "\n",
        "  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "*x",
        "&x ",
        "<<: ",
        "!!int ",
        "${",
        "'",
        '"',
        "?",
        "|",
        "2020-13-01",
    ]
    words = st.lists(st.sampled_from(signs))

    def work(data: bytes) -> None:
        file.write_bytes(data)
        check_file(file)
        with one_line(file):
            read_config(file)

    @often
    @given(BYTES | words.map(lambda w: "".join(w).encode()))
    @example(b'"0"')
    def check(data: bytes) -> None:
        assert tried(work, data)

    check()


def test_any_metrics_are_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"

    @often
    @given(
        st.binary(max_size=200) | st.lists(ANY, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
    )
    def check(data: bytes) -> None:
        file.write_bytes(data)
        assert tried(read_metrics, file)

    check()


FOUND = [
    ("manifest", b'{"files": {"a": {"size": 1e999, "sha256": "cd"}}}'),
    ("health", b"[" * 100_000),
    ("stamp", b'{"says": "x", "seconds": %s}' % (b"9" * 400)),
    ("state", b'{"step": ' * 100_000),
    *(
        ("shelf", json.dumps([OWN | odd]).encode())
        for odd in ({"top_ids": None}, {"logprobs": [None]}, {"top_ids": [1.5]})
    ),
    *(("record", json.dumps([WRITTEN | odd]).encode()) for odd in ({"tokens": [None, 1]}, {"logprobs": ["a", "b"]})),
]
"""What has escaped once."""


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_is_read_or_refused(name: str, data: bytes, tmp_path: Path) -> None:
    reader = readers()[name]
    assert escaped(reader, tmp_path / reader.file, reader.pack(data) if reader.pack else data) == ""


@pytest.mark.parametrize("name", readers())
def test_a_whole_file_is_read_and_one_that_is_nearly_whole_is_read_or_refused(name: str, tmp_path: Path) -> None:
    reader, generator = readers()[name], random.Random(name)
    file = tmp_path / reader.file
    for whole in reader.whole:
        file.write_bytes(reader.pack(whole) if reader.pack else whole)
        reader.read(file)
    for _ in range(100):
        data = changed(generator, reader)
        assert escaped(reader, file, data) == "", data
