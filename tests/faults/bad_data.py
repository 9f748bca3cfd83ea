"""Rows that are none, cells that hold the wrong kind, files and folders that are damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.inputs import Bad, Place
from tests.faults.lies import ESCAPES

ROWS = [{"prompt": f"{i}+{i}:", "answer": str(2 * i)} for i in range(12)]
DIGITS = "9" * 5000
HALF = "\\ud83d"
DEEP = 100_000


def cases() -> Iterator[Bad]:
    """All of them."""
    yield from _cells()
    yield from _files()
    yield from _tables()


def of(place: Place, path: str, **settings: Any) -> list[str]:
    """A run on rows."""
    more = "".join(f"\n      {name}: {json.dumps(value)}" for name, value in settings.items())
    file = place.folder / "rows.yaml"
    place.config()
    file.write_text(f"""defaults: [tiny, {{override data: exact_match}}, _self_]
data:
  tasks:
    exact_match:
      path: {json.dumps(path)}
      eval_fraction: 0.5{more}
  max_prompt_tokens: 64
""")
    return ["train", f"conf={file}"]


def file(name: str, data: bytes, **settings: Any) -> Callable[[Place], list[str]]:
    """A run on a file."""

    def make(place: Place) -> list[str]:
        (place.folder / name).write_bytes(data)
        return of(place, str(place.folder / name), **settings)

    return make


def lines(*rows: str) -> bytes:
    """Sound rows, and these among them."""
    sound = [json.dumps(row) for row in ROWS]
    return "\n".join([*sound[:6], *rows, *sound[6:]]).encode("utf-8", "surrogatepass") + b"\n"


def _cells() -> Iterator[Bad]:
    values = ["null", "3", "1.5", "true", "[]", "{}", '""', '" "', "[1]", "[null]", "[{}]", '[{"role": "user"}]',
        '[{"content": "a"}]', '["a"]',
              '[{"role": "user", "content": null}]', '[{"role": "user", "content": 3}]',
              '[{"role": "user", "content": {}}]', '[{"role": "user", "content": [1]}]',
              '[{"role": 3, "content": "a"}]', '[{"role": "assistant", "content": "a"}]',
              '[{"role": "system", "content": "a"}]', f'"{HALF}"', '"\\ud83d\\ud83d"',
              "NaN", "Infinity", "-Infinity", DIGITS, f"{DIGITS}.0", f"1e{DIGITS}", "[" * DEEP + "]" * DEEP,
              "[" * 200 + "]" * 200, '{"a":' * 500 + "1" + "}" * 500,
              '[{"role": "user", "content": "a", "tool_calls": 3}]', '[{"role": "tool", "content": "a"}]',
              '[{"role": "wizard", "content": "a"}]',
              '[{"role": "user", "content": "a", "x": ' + "[" * 300 + "]" * 300 + "}]",
              '{"role": "user", "content": "a"}', '[[{"role": "user", "content": "a"}]]']  # fmt: skip
    for column in ("prompt", "answer"):
        for value in values:
            other = '"answer": "3"' if column == "prompt" else '"prompt": "1+1:"'
            row = f'{{"{column}": {value}, {other}}}'
            yield Bad(
                "cells", f"{column}: {value[:44]}", file("rows.jsonl", lines(row)), harmless=(column, value) in FINE
            )
    for name in (ESCAPES, "x" * 300, "a\0b", "\u202e"):
        rows = lines(json.dumps({name: 1, "answer": "3"}))
        yield Bad("cells", f"a column called {name[:20]!r}", file("rows.jsonl", rows))
        yield Bad("cells", f"columns called {name[:20]!r}", file("rows.jsonl", json.dumps({name: 1}).encode()))
        yield Bad("cells", f"a column named {name[:20]!r}", file("rows.jsonl", lines(), prompt_column=name))
    for row in ("3", "null", "[]", '"a"', "{}", "{", "}", "a", '{"prompt": "a"}',
        '{"prompt": "a", "prompt": "b", "answer": "3"}', "{'prompt': 'a'}", "\0",
                '{"prompt": "a", "answer": "3",}', '{"prompt": "a" "answer": "3"}', '{"prompt": "a\n", "answer": "3"}',
                f'{{"{HALF}": 1}}', "NaN", "\ud800", "[" * DEEP):  # fmt: skip
        yield Bad("cells", f"a row {row[:30]!r}", file("rows.jsonl", lines(row)))
        yield Bad("cells", f"a list with {row[:30]!r}", file("rows.json", f"[{row}]".encode("utf-8", "surrogatepass")))


FINE = {("answer", v) for v in ("3", "1.5", "[1]", '["a"]', DIGITS, f"{DIGITS}.0", f"1e{DIGITS}")} | {
    ("prompt", '[{"role": "wizard", "content": "a"}]')
}
FINE |= {
    ("prompt", v)
    for v in (
        '[{"role": "system", "content": "a"}]',
        '[{"role": "tool", "content": "a"}]',
        '[{"role": "user", "content": "a", "tool_calls": 3}]',
    )
}


def _files() -> Iterator[Bad]:
    good = lines()
    table = b"prompt,answer\n" + b"".join(f"{r['prompt']},{r['answer']}\n".encode() for r in ROWS)
    texts: dict[str, tuple[str, bytes]] = {
        "nothing": ("a.jsonl", b""), "blank lines": ("a.jsonl", b"\n \n\n"), "no UTF-8": ("a.jsonl",
        good + b'{"prompt": "\xff"}\n'), "UTF-16": ("a.jsonl", good.decode().encode("utf-16")),
        "zeros": ("a.jsonl", b"\0" * 10**6), "a picture": ("a.jsonl", b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
        "an empty list": ("a.json", b"[]"), "an open list": ("a.json", b"[" + good[:50]),
        "a mapping of lists": ("a.json", b'{"data": [{"prompt": "a"}]}'), "commas": ("a.json", b"[,,,]"),
        "more than a list": ("a.json", b"[] []"), "half a gzip": ("a.jsonl.gz", gzip.compress(good)[:-12]),
        "no gzip": ("a.jsonl.gz", good), "a damaged gzip": ("a.jsonl.gz",
        gzip.compress(good)[:20] + b"\xff" * 20 + gzip.compress(good)[40:]), "no zstd": ("a.jsonl.zst", b"hello"),
        "no bzip2": ("a.jsonl.bz2", b"BZh9" + b"\0" * 20), "half a bzip2": ("a.jsonl.bz2", bz2.compress(good)[:-8]),
        "a packed line of a gigabyte": ("a.jsonl.gz", _line_of(1 << 30)),
        "no line": ("a.csv", b""), "names alone": ("a.csv", b"prompt,answer\n"), "other columns": ("a.csv",
        b"a,b\n1,2\n"), "too many cells": ("a.csv", table + b"1,2,3\n"),
        "too few cells": ("a.csv", table + b"1\n"), "an open quote": ("a.csv", table + b'"1,2\n'),
        "a quote within": ("a.csv", table + b'1,2"3\n1,"2"3\n'), "NUL": ("a.csv", table + b"1\0,2\n"),
        "names twice": ("a.csv", b"prompt,prompt,answer\n1,2,3\n"), "semicolons": ("a.csv", b"prompt;answer\n1;2\n"),
        "no UTF-8 in a table": ("a.csv", table + b"\xff,1\n"), "tabs": ("a.tsv", table),
        "an empty prompt": ("a.csv", table + b",3\n"), "an empty answer": ("a.csv", table + b"1+1:,\n"),
        "a date of year 0": ("a.csv", table + b"1+1:,0000-00-00\n"), "5,000 digits": ("a.csv",
        table + b"1+1:," + b"9" * 5000 + b"\n"),
        "no parquet": ("a.parquet", b"hello"), "an empty parquet": ("a.parquet", b""), "magic alone": ("a.parquet",
        b"PAR1PAR1"), "a long footer": ("a.parquet", b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1"),
        "Feather": ("a.feather", b"ARROW1"), "a text": ("a.txt", b"hello"), "a workbook": ("a.xlsx", b"PK\x03\x04"),
    }  # fmt: skip
    for name, (at, data) in texts.items():
        fine = name in ("5,000 digits", "a date of year 0", "NUL")
        yield Bad("files", name, file(at, data), harmless=fine)
    body = _parquet(pa.table({k: [r[k] for r in ROWS] * 40 for k in ("prompt", "answer")}))
    for part in range(1, 10):
        yield Bad("parquet", f"{part} tenths of it", file("a.parquet", body[: len(body) * part // 10]))
        yield Bad(
            "parquet",
            f"without the middle, {part}",
            file("a.parquet", body[: len(body) * part // 10] + body[len(body) * part // 10 + 7 :]),
        )
    for at in range(4, len(body) - 8, max(1, len(body) // 60)):
        damaged = body[:at] + bytes(255 - b for b in body[at : at + 6]) + body[at + 6 :]
        yield Bad("parquet", f"other bytes from {at}", file("a.parquet", damaged), harmless=True)


def _line_of(size: int) -> bytes:
    """A line without end, packed."""
    with io.BytesIO() as buffer:
        with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed:
            packed.write(b'{"prompt": "')
            for _ in range(size >> 20):
                packed.write(b"a" * (1 << 20))
        return buffer.getvalue()


def _parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def _tables() -> Iterator[Bad]:
    """Kinds of columns that are no texts, and values that Python does not have."""
    deep: Any = ["a"]
    for _ in range(150):
        deep = [deep]
    columns: dict[str, Callable[[], pa.Array]] = {
        "years beyond all": lambda: pa.array([2**40], pa.timestamp("s")),
        "years before all": lambda: pa.array([-(2**60)], pa.timestamp("us")), "nanoseconds": lambda: pa.array([1],
        pa.timestamp("ns")),
        "days beyond all": lambda: pa.array([2**31 - 1], pa.date32()), "days before all": lambda: pa.array([-(2**31)],
        pa.date32()), "milliseconds beyond all": lambda: pa.array([2**62], pa.date64()),
        "a time": lambda: pa.array([1], pa.time32("s")), "a time beyond the day": lambda: pa.array([2**31 - 1],
        pa.time32("s")), "a span": lambda: pa.array([2**62], pa.duration("s")),
        "no zone": lambda: pa.array([1], pa.timestamp("s", tz="No/Where")), "bytes": lambda: pa.array([b"\xff"],
        pa.binary()),
        "nothing": lambda: pa.nulls(1), "a truth": lambda: pa.array([True]),
        "not a number": lambda: pa.array([float("nan")]), "a mapping": lambda: pa.array([[("a", 1)]],
        pa.map_(pa.string(), pa.int64())),
        "a record": lambda: pa.array([{"a": 1}]), "a list": lambda: pa.array([[1, 2]]),
        "an empty list": lambda: pa.array([[]], pa.list_(pa.string())),
        "an index": lambda: pa.array(["a"]).dictionary_encode(),
        "no UTF-8": lambda: pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"),
        pa.py_buffer(b"\xff\xfe")]), "a long decimal": lambda: pa.array([10**37], pa.decimal128(38, 0)),
        "lists in lists": lambda: pa.array([deep]),
    }  # fmt: skip
    for name, column in columns.items():
        for at in ("prompt", "answer"):
            fine = name in ("a long decimal", "an index", "a list") or (name == "a record" and at == "prompt")
            yield Bad("columns", f"{at}: {name}", partial(_column, column, at), harmless=fine)
    for name in (ESCAPES, "x" * 300, "a\0b", ""):
        yield Bad("columns", f"called {name[:20]!r}", file("a.parquet", _parquet(pa.table({name: ["a"]}))))
    twice = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["prompt", "prompt", "answer"])
    yield Bad("columns", "of one name", file("a.parquet", _parquet(twice)))
    yield Bad("columns", "none", file("a.parquet", _parquet(pa.table({}))))
    yield Bad(
        "columns",
        "of no rows",
        file(
            "a.parquet", _parquet(pa.table({"prompt": pa.array([], pa.string()), "answer": pa.array([], pa.string())}))
        ),
    )


def _column(column: Callable[[], pa.Array], at: str, place: Place) -> list[str]:
    cells, count = column(), len(ROWS)
    odd = pa.concat_arrays([cells] * count)
    other = [r["answer" if at == "prompt" else "prompt"] for r in ROWS]
    table = pa.table({at: odd, "answer" if at == "prompt" else "prompt": other})
    return file("a.parquet", _parquet(table))(place)
