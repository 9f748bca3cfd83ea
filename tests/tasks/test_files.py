"""Files of every kind give the same rows, whatever they are packed in; mistakes are named by file and line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from opd.tasks.files import load
from opd.tasks.text import Prompts
from opd.types import UserError

ROWS = [{"prompt": f'question {i}, "quoted"\nand\tlonger', "answer": str(i)} for i in range(30)]


def test_folders_that_are_too_deep_to_look_through_are_named(tmp_path: Path, deep: Callable[[Path], Path]) -> None:
    deep(tmp_path)
    with pytest.raises(UserError, match=f"path: {tmp_path} cannot be looked through"):
        load(str(tmp_path), columns=["prompt"])


def lines(rows: Any = ROWS) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(separator: str) -> bytes:
    text = io.StringIO()
    out = csv.DictWriter(text, ["prompt", "answer"], delimiter=separator)
    out.writeheader()
    out.writerows(ROWS)
    return text.getvalue().encode()


def zstd_file(path: Path, data: bytes) -> None:
    with pyarrow.output_stream(str(path), compression="zstd") as out:
        out.write(data)


KINDS: dict[str, bytes] = {
    "a.jsonl": lines(),
    "bom.jsonl": b"\xef\xbb\xbf" + lines(),
    "blank.jsonl": b"\n" + lines().replace(b"\n", b"\r\n\r\n"),
    "a.json": json.dumps(ROWS).encode(),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(ROWS, indent=1).encode(),
    "lines.json": lines(),
    "a.csv": table(","),
    "bom.csv": b"\xef\xbb\xbf" + table(","),
    "a.tsv": table("\t"),
    "A.JSONL": lines(),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress}


def place(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_rows_packed_or_not(name: str, packed: str, tmp_path: Path) -> None:
    path = tmp_path / (name + packed)
    if packed == ".zst":
        zstd_file(path, KINDS[name])
    else:
        path.write_bytes(PACKED.get(packed, bytes)(KINDS[name]))
    assert [dict(r) for r in load(str(path), columns=["prompt", "answer"])] == ROWS
    assert len(load(str(path), columns=["answer"], limit=7)) == 7


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.parquet"])
def test_a_folder_of_files_is_read_in_the_order_of_their_names(name: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for folder, rows in ((tmp_path, ROWS[:20]), (tmp_path / "sub", ROWS[20:])):
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
        elif name.endswith(".csv"):
            text = io.StringIO()
            out = csv.DictWriter(text, ["prompt", "answer"])
            out.writeheader()
            out.writerows(rows)
            place(folder, name, text.getvalue().encode())
        else:
            place(folder, name, lines(rows) if name.endswith("l") else json.dumps(rows).encode())
    (tmp_path / "LICENSE").write_text("free")
    assert [dict(r) for r in load(str(tmp_path), columns=["prompt", "answer"])] == ROWS


def test_files_of_a_folder_are_parted_by_the_split_in_their_names(tmp_path: Path) -> None:
    for name, rows in (("train-00.jsonl", ROWS[:9]), ("train-01.jsonl", ROWS[9:12]), ("my_dev.jsonl", ROWS[12:14])):
        place(tmp_path, name, lines(rows))
    assert len(load(str(tmp_path), columns=["prompt"])) == 12
    assert len(load(str(tmp_path), columns=["prompt"], split="validation")) == 2
    task = Prompts(path=str(tmp_path), eval_split="dev")
    assert [len(task.examples(s)) for s in ("train", "eval")] == [12, 2]
    with pytest.raises(UserError, match="no file is of the split 'test'; by their names there are: train, validation"):
        load(str(tmp_path), columns=["prompt"], split="test")
    (tmp_path / "other.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(UserError, match=r"and those of others none: other\.jsonl; rename them"):
        load(str(tmp_path), columns=["prompt"], split="train")


def test_files_of_one_folder_with_other_columns_are_told_by_both_lists(tmp_path: Path) -> None:
    place(tmp_path, "a.jsonl", lines(ROWS[:3]))
    place(tmp_path, "b.jsonl", lines([{"question": "x", "answer": "y"}]))
    says = r"b\.jsonl, line 1: no column 'prompt'; columns there: answer, question; in a\.jsonl: answer, prompt"
    with pytest.raises(UserError, match=says):
        load(str(tmp_path), columns=["prompt"])
    assert len(load(str(tmp_path), columns=["answer"])) == 4


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", b'{"prompt": 1}\nnot json\n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"prompt": 1}\n[1]\n', r"line 2 is not an object but \[1\]"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "line 1 is not UTF-8"),
        ("a.jsonl", '{"prompt": 1}'.encode("utf-16"), "line 1 is not UTF-8: it is UTF-16; write it as UTF-8"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "is packed by gzip; give it a name that ends in .gz"),
        ("a.csv", "prompt,answer".encode("utf-16"), "line 1 is not UTF-8: it is UTF-16"),
        ("a.jsonl", b'{"prompt": "\\ud83d"}\n', r"line 1: column 'prompt' holds half of a character \(\\ud83d\)"),
        ("a.jsonl", b'{"prompt": ' + b"7" * 5000 + b"}\n", "line 1 holds a number that cannot be read"),
        ("a.jsonl", b'{"prompt": ' + b"[" * 100000 + b"]" * 100000 + b"}\n", "line 1 is nested too deeply"),
        ("a.jsonl", b'{"prompt": "a", "prompt": "b"}\n', "line 1 has two values under one name, 'prompt'"),
        ("a.jsonl", b'{"prompt": {"a": 1, "a": 2}}\n', "line 1 has two values under one name, 'a'"),
        ("a.jsonl", b'{"prompt": ' + b"[" * 200 + b"]" * 200 + b"}\n", "line 1: column 'prompt' is nested too deeply"),
        ("a.jsonl", b'{"prompt": 1, "\\ud83d": 2}\n', r"line 1: the name of a column holds half of a character"),
        ("a.json", b'[{"prompt": 1}, 2]', "item 2 is not an object but 2"),
        ("a.json", b'[{"prompt": 1}, {"prompt": nul}]', "item 2 is not JSON"),
        ("a.json", b'[{"prompt": 1} {"prompt": 2}]', "neither a comma nor the end of the file follows item 1"),
        ("a.json", b'{"prompt": 1,\n"answer": 2}', "line 1 is not JSON.*a .json file holds a list of objects, or one"),
        ("a.json", b"[", "is not JSON"),
        ("a.csv", b"prompt,answer\na,b\nc\n", "line 3 has 1 cells, and there are 2 columns"),
        ("a.csv", b"prompt,prompt\na,b\n", "two of its columns have one name"),
        ("a.csv", b'prompt,answer\n"a,b\n', "line 2"),
        ("a.csv", b"prompt,answer\n\xff,b\n", "is not UTF-8"),
        ("a.parquet", b"PAR1 no", "is not a parquet file"),
        ("a.jsonl.gz", b"no gzip", "cannot be unpacked"),
        ("a.jsonl.zst", b"no zstd", "cannot be unpacked"),
        ("a.jsonl.gz", gzip.compress(lines(), mtime=0)[:80], "cannot be unpacked"),
        ("a.jsonl", b"", "has no rows"),
        ("a.csv", b"prompt\n", "has no rows"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as error:
        load(str(place(tmp_path, name, data)), columns=["prompt"])
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_tables_give_numbers_with_the_digits_of_their_kind_and_leave_out_what_they_filled_up(tmp_path: Path) -> None:
    kind = pyarrow.struct([("a", pyarrow.float32()), ("b", pyarrow.string())])
    cells = [{"a": 0.1, "b": None}, {"a": None, "b": "x"}]
    column = pyarrow.array([cells, None], pyarrow.list_(kind))
    table = pyarrow.table({"prompt": column, "answer": pyarrow.array([0.3, 2.5], pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = load(str(tmp_path / "a.parquet"), columns=["prompt", "answer"])
    assert [dict(row) for row in rows] == [
        {"prompt": [{"a": pytest.approx(0.1)}, {"b": "x"}], "answer": pytest.approx(0.3)},
        {"prompt": None, "answer": 2.5},
    ]
    assert [str(rows[0]["answer"]), str(rows[0]["prompt"][0]["a"])] == ["0.3", "0.1"]
    assert [row.where for row in rows] == [f"{tmp_path / 'a.parquet'}, row {i}" for i in (1, 2)]
