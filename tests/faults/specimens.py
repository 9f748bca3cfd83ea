"""What a run reads, file by file: whole ones of every kind, and who reads them."""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from opd.config.bounds import check_file
from opd.config.files import read as read_config
from opd.config.mistakes import one_line
from opd.recipe.stamps import Stamp
from opd.report.paired import FIGURES, completions, paired
from opd.run import health
from opd.run.checkpoint import STATE, Checkpoint
from opd.run.directory import RunFolder, read_environment
from opd.run.ending import ended
from opd.run.manifest import difference
from opd.run.metrics import read_metrics, skim
from opd.run.results import read_evaluation
from opd.run.transcripts import read_transcripts
from opd.sources import recorded
from opd.sources.recorded import Record
from opd.tasks.guess import guess
from opd.teachers import shelf
from opd.teachers.answers import judgement, rows_of
from opd.teachers.chosen import chosen
from opd.teachers.client import _message
from opd.teachers.said import Cards, Tokenized, read
from opd.teachers.shelf import Shelf
from opd.types import ROUNDING


@dataclass(frozen=True)
class Reader:
    """Something that reads a file."""

    file: str
    """The name that the file has."""
    whole: Sequence[bytes]
    """Files that it can read."""
    read: Callable[[Path], object]
    pack: Callable[[bytes], bytes] | None = None
    """For a packed file: half of the changes are made before that."""


ROWS: list[dict[str, Any]] = [
    {"prompt": "How many?", "answer": 12, "tags": ["a", None], "meta": {"level": 1.50, "when": "2020-01-31"}},
    {"prompt": "Née à Zürich 🙂", "answer": 'it\'s "here",\nand there', "tags": [], "meta": {}},
    {"prompt": [{"role": "system", "content": "Short."}, {"role": "user", "content": "Who?"}], "answer": ["x", "y"]},
]
EVEN = [
    {"prompt": "How many?", "answer": "12", "tags": ["a"], "meta": {"level": 1.5}},
    {"prompt": "Who?", "answer": "x", "tags": [], "meta": None},
]
CONFIGS = (
    b"""# A run of one's own.
defaults: [quickstart, _self_]
steps: 3
student: {model: ./student, dtype: null}
teacher:
  _target_: opd.teachers.local.LocalTeacher
  model: &m "${student.model}"
  ratio: 1.5e-3
sampling: {n: 4, temperature: 1.0, stop: [a, 'b: c', "\\n"]}
data:
  tasks: {one: {_target_: opd.tasks.text.Prompts, path: a.jsonl}, two: {path: *m, when: 2020-01-31}}
""",
    b"defaults:\n  - config\n  - override /objective: sft\n  - _self_\nname: ${oc.env:HOME}\nnotes: |\n  many\n",
)
PLACES = [{str(t): {"logprob": -0.5 - t, "rank": 1}, "7": {"logprob": -1e4}} for t in (3, 4, 5)]
LOGPROBS = {"choices": [{"prompt_logprobs": [None, *PLACES]}]}
CARDS = {"object": "list", "data": [{"id": "Qwen/Qwen3-32B", "root": "/models/q", "max_model_len": 4096, "created": 1}]}
METRICS = (
    b'{"step": 1, "kl/exact": 0.5, "time/step": 2.5e-1}\n{"step": 2, "kl/exact": "NaN", "time/step": 3}\n',
    b'{"step": 1, "loss": -0.25}\n{"step": 2, "loss": "Infinity", "grad_norm": 12345678901234567890}\n',
)
EVALUATION = {
    "name": "student after step 3",
    "metrics": {"eval/accuracy": 0.5, "eval/count": 200, "eval/kl": None},
    "sampling": {"temperature": 0.0, "max_tokens": 48, "n": 1, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "seed": 0},
    "prompts": {"digest": "abc", "count": 200},
}
MANIFEST = {"files": {"state.json": {"size": 12, "sha256": "ab" * 32}, "model/a.json": {"size": 3, "sha256": "cd"}}}
VERDICTS = {"step": 3, "verdicts": [{"name": "kl", "seen": "it rises", "means": "it unlearns", "do": "optim.lr=1e-5"}]}
ENVIRONMENT = b'{"python": "3.11", "packages": {"torch": "2.11.0"}, "cpus": 2, "gpus": []}'
ERRORS = (
    b'{"error": {"message": "no such model", "code": 404}}',
    b'{"object": "error", "message": "too long"}',
    b"Oops",
)
TRANSCRIPT = {
    "id": "a/1", "prompt": "How many?", "completion": "12", "reward": 1.0, "truncated": False, "version": 2,
    "origin": "student", "prompt_tokens": [1, 2], "tokens": [3, 4], "texts": ["1", "2"], "logprobs": [-0.5, -1.0],
    "trained": [True, False], "teacher_logprobs": [-0.25, -0.5], "teacher_top": [["1", "a"], ["2", "b"]],
    "teacher_top_logprobs": [[-0.25, -3.0], [-0.5, -2.0]],
}  # fmt: skip
TRANSCRIPTS = json.dumps([TRANSCRIPT, TRANSCRIPT | {"reward": None}]).encode()
META = b'{"teacher": "abc", "top_k": 2}'
OWN = {"key": "ab", "logprobs": [-0.5, -1.0], "top_ids": [1, 2, 3, 4], "top_logprobs": [-0.5, -2.0, -0.5, -1.5]}
SHELF = json.dumps([OWN, OWN | {"key": "cd"}]).encode()
WRITTEN = {"key": "ab", "tokens": [1, 2], "logprobs": [-0.5, -1.0], "truncated": False}
RECORD = json.dumps([WRITTEN, WRITTEN | {"truncated": True}]).encode()
SAMPLES = b"".join(
    json.dumps({"id": f"a/{i}", "tokens": i, "score": i % 2, "kl": 0.5, "truncated": False}).encode() + b"\n"
    for i in range(24)
)
STATES = {"step": 3, "optimizer_steps": 3, "python_random": [3, [1, 2, 3], None], "proven": True, "base": {}}


@cache
def readers() -> Mapping[str, Reader]:
    """All of them by name."""
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    comma, tab = (_separated(sign) for sign in ",\t")
    return {
        "rows.jsonl": Reader("a.jsonl", [lines], _rows),
        "rows.json": Reader("a.json", [json.dumps(ROWS, indent=1).encode(), lines], _rows),
        "rows.csv": Reader("a.csv", [comma], _rows),
        "rows.tsv": Reader("a.tsv", [tab], _rows),
        "rows.parquet": Reader("a.parquet", [_parquet(way) for way in ("none", "snappy", "zstd")], _rows),
        "rows in parquet": Reader("a.parquet", [json.dumps(EVEN).encode()], _rows, _tabled),
        "rows.gz": Reader("a.jsonl.gz", [lines], _rows, gzip.compress),
        "rows.zst": Reader("a.csv.zst", [comma], _rows, partial(_packed, "zstd")),
        "rows.bz2": Reader("a.tsv.bz2", [tab], _rows, partial(_packed, "bz2")),
        "config": Reader("a.yaml", CONFIGS, _config),
        "log-probs": Reader("a.json", [json.dumps(LOGPROBS).encode()], _log_probs),
        "cards": Reader("a.json", [json.dumps(CARDS).encode()], lambda file: read(Cards, file.read_bytes())),
        "tokens": Reader("a.json", [b'{"tokens": [1, 22, 333]}'], lambda file: read(Tokenized, file.read_bytes())),
        "chosen": Reader("a.json", [_array()], _chosen, _in_base64),
        "metrics": Reader("metrics.jsonl", METRICS, _metrics),
        "transcripts": Reader("step_000003.parquet", [TRANSCRIPTS], lambda f: read_transcripts(f.parent, 3), _tabled),
        "evaluation": Reader("a.json", [json.dumps(EVALUATION).encode()], read_evaluation),
        "end": Reader("ended.json", [b'{"how": "failed", "why": "no space left"}\n'], lambda file: ended(file.parent)),
        "health": Reader("health.json", [json.dumps(VERDICTS, indent=2).encode()], health.read),
        "stamp": Reader("a.json", [b'{"says": "train", "seconds": 1.5}'], Stamp.read),
        "completions": Reader("a.jsonl", [SAMPLES], _compared),
        "environment": Reader("env.json", [ENVIRONMENT], lambda file: read_environment(RunFolder(file.parent))),
        "error": Reader("a.json", ERRORS, lambda file: _message(500, file.read_bytes())),
        "shelf": Reader("a.parquet", [SHELF], _shelf, partial(_tabled, key=shelf.META, said=META)),
        "record": Reader("a.parquet", [RECORD], _record, partial(_tabled, key=recorded.META, said=b"abc")),
        "manifest": Reader("manifest.json", [json.dumps(MANIFEST).encode()], lambda file: difference(file.parent)),
        "state": Reader(STATE, [json.dumps(STATES).encode()], _state),
    }  # fmt: skip


def _rows(file: Path) -> None:
    """As a task that its columns make of it, to the last row."""
    found = guess(str(file))
    settings = dict(found.settings)
    module, _, name = settings.pop("_target_").rpartition(".")
    task = getattr(import_module(module), name)(**settings)
    for split in ("train", "eval"):
        for example in task.examples(split):
            task.verify(example, "12")


def _separated(sign: str) -> bytes:
    rows = [["prompt", "answer", "note"], ["How many?", "12", 'a "b"'], ["Née à Zürich\n🙂", "-1.50", ""]]
    return "".join(
        sign.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) + "\r\n" for row in rows
    ).encode()


def _parquet(packed: str) -> bytes:
    """Columns of all the kinds that the libraries of data sets write."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    now = datetime.datetime(2020, 1, 31, 12, 30)
    columns = {
        "prompt": pa.array(["How many?", "Née à Zürich 🙂", "Who?"]),
        "answer": pa.array([1.5, 2.0, 3.0], pa.float32()),
        "tags": pa.array([["a"], [], None]),
        "meta": pa.array([{"level": 1}, {"level": None}, None]),
        "when": pa.array([now, None, now], pa.timestamp("us", "Europe/Zurich")),
        "price": pa.array([decimal.Decimal("1.50"), None, None]),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "raw": pa.array([b"\xff", b"", None]),
        "pairs": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int8())),
    }
    with io.BytesIO() as file:
        pq.write_table(pa.table(columns), file, compression=packed)
        return file.getvalue()


def _packed(way: str, data: bytes) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, way) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def _tabled(data: bytes, key: bytes = b"", said: bytes = b"") -> bytes:
    """Rows in JSON as a parquet file, with the types that they happen to have; what is none stays."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.Table.from_pylist(json.loads(data))
        with io.BytesIO() as file:
            pq.write_table(table.replace_schema_metadata({key: said} if key else None), file)
            return file.getvalue()
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, pa.ArrowException):
        return data


def _config(file: Path) -> None:
    check_file(file)
    with one_line(file):
        read_config(file)


def _log_probs(file: Path) -> None:
    found = rows_of(file.read_bytes(), 4)
    judged = judgement(found[1:], [3, 4, 5], 45, 45, 2)
    assert bool((judged.logprobs <= 0).all())
    assert judged.top_logprobs is not None
    assert bool((judged.top_logprobs <= 0).all())


def _array() -> bytes:
    import numpy as np

    with io.BytesIO() as file:
        np.save(file, -np.arange(6, dtype=np.float32).reshape(2, 3))
        return file.getvalue()


def _shelf(file: Path) -> None:
    for entry in Shelf.open(file.parent, {"teacher": "abc"}, 2).entries.values():
        assert (entry.logprobs <= ROUNDING).all()
        assert entry.top_ids is not None
        assert entry.top_logprobs is not None
        assert (entry.top_logprobs <= ROUNDING).all()
        assert entry.top_ids.shape == entry.top_logprobs.shape == (len(entry.logprobs), 2)
        assert (entry.top_ids >= 0).all()


def _record(file: Path) -> None:
    for entries in Record.open(file.parent, "abc").entries.values():
        for tokens, logprobs, truncated in entries:
            assert all(type(token) is int and token >= 0 for token in tokens)
            assert all(type(value) is float and value <= ROUNDING for value in logprobs)
            assert type(truncated) is bool


def _compared(file: Path) -> None:
    """With themselves, so that every figure is looked at."""
    found = completions(file)
    paired(found, found, dict.fromkeys(FIGURES, (0.5, 0.5)))


def _in_base64(data: bytes) -> bytes:
    return json.dumps({"prompt_token_id_logprobs": base64.b64encode(data).decode()}).encode()


def _chosen(file: Path) -> None:
    found = chosen(file.read_bytes(), 2, 3)
    assert found is None or bool((found <= 0).all())


def _metrics(file: Path) -> None:
    read_metrics(file)
    skim(file)


def _state(file: Path) -> None:
    with suppress(ValueError):  # of which whoever reads a checkpoint makes a line
        Checkpoint(file.parent).state()
