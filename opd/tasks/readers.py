"""Rows of one file of each kind, packed or not; what cannot be read whole is named by file and line."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opd.tasks.arrow import rows_of
from opd.tasks.cells import check_readable
from opd.tasks.parsing import items, parsed
from opd.types import UserError

Found = Iterator[tuple[str, Sequence[str], Mapping[str, Any]]]
"""Where each row is, which columns are there, and at least those that were asked for."""
TABLES = {".csv": ",", ".tsv": "\t"}
"""What separates the columns of a table that is text."""
PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Packed files, and how pyarrow calls what unpacks them."""
SUFFIXES = (".jsonl", ".json", *TABLES, ".parquet")
"""Kinds of files; all but parquet may be packed as well."""

OTHERS = (".txt", ".ndjson", ".xz", ".xlsx", ".arrow", ".feather", ".7z")
"""What ends the names of files, too, that are not read."""


SIGNS = {
    b"\xff\xfe": "it is UTF-16; write it as UTF-8", b"\xfe\xff": "it is UTF-16; write it as UTF-8",
    b"\x1f\x8b": "it is packed by gzip; give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "it is packed by zstd; give it a name that ends in .zst",
    b"BZh": "it is packed by bzip2; give it a name that ends in .bz2",
    b"PAR1": "it is a parquet file; give it a name that ends in .parquet",
    b"PK\x03\x04": "it is a zip file or a table of Excel's; unpack it, or write it as CSV",
}  # fmt: skip
"""How files begin that are called otherwise."""


def kind_of(path: str) -> str | None:
    """The suffix that says what is in a file, packed or not; None for others."""
    name = path.lower()
    bare = next((name.removesuffix(p) for p in PACKED if name.endswith(p)), name)
    kind = next((s for s in SUFFIXES if bare.endswith(s)), None)
    return None if kind == ".parquet" and bare != name else kind


def read(file: Path, wanted: Sequence[str]) -> Found:
    """Read a file's rows; UserError where one cannot be read whole."""
    kind = kind_of(file.name)
    if kind == ".parquet":
        return _parquet(file, wanted)
    return {".json": _json, ".jsonl": _jsonl}.get(str(kind), _table)(file)


def _jsonl(file: Path) -> Found:
    with _open(file) as lines:
        for number, raw in enumerate(lines, start=1):
            if raw.strip():
                where = f"{file}, line {number}"
                yield _object(parsed(_text(raw, where), f"path: {where}"), where)


def _json(file: Path) -> Found:
    """One list of objects, or lines like those of `.jsonl`."""
    with _open(file) as stream:
        text = _text(stream.read(), str(file))
    if text.lstrip().startswith("["):
        for number, row in enumerate(items(text, f"path: {file}"), start=1):
            yield _object(row, f"{file}, item {number}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{file}, line {number}"
            try:
                row = parsed(line, f"path: {where}")
            except UserError as error:
                raise UserError(f"{error} (a .json file holds a list of objects, or one in each line)") from error
            yield _object(row, where)


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"path: {where} is not UTF-8: {_other(raw) or error.reason}") from error


def _other(raw: bytes) -> str:
    """What begins with these bytes, for people; empty where nobody knows."""
    return next((said for sign, said in SIGNS.items() if raw.startswith(sign)), "")


def _object(row: Any, where: str) -> tuple[str, Sequence[str], Mapping[str, Any]]:
    if not isinstance(row, dict):
        raise UserError(f"path: {where} is not an object but {repr(row)[:40]}")
    for name, cell in row.items():
        check_readable(name, f"path: {where}: the name of a column")
        check_readable(cell, f"path: {where}: column {name!r}")
    return where, list(row), row


def _table(file: Path) -> Found:
    """Rows of a text table whose first line names the columns; every cell is a text."""
    separator = TABLES[str(kind_of(file.name))]
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a cell may hold a whole document
    with _open(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, delimiter=separator, strict=True)
        try:
            names = next(lines, [])
            other = next((s for s in (";", ",", "\t", "|") if len(names) == 1 and s in names[0]), None)
            if other is not None:
                raise UserError(
                    f"path: {file}: its columns are separated by {other!r}; allowed is {separator!r} in a "
                    f"{kind_of(file.name)} file" + (", or rename it to .tsv" if other == "\t" else "")
                )
            if len(set(names)) < len(names):
                raise UserError(f"path: {file}: two of its columns have one name: {', '.join(names)}")
            for cells in lines:
                where = f"{file}, line {lines.line_num}"
                if cells and len(cells) != len(names):
                    raise UserError(f"path: {where} has {len(cells)} cells, and there are {len(names)} columns")
                if cells:
                    yield where, names, dict(zip(names, cells, strict=True))
        except UnicodeDecodeError as error:
            said = _other(error.object) if lines.line_num == 0 else ""
            raise UserError(f"path: {file}, line {lines.line_num + 1} is not UTF-8: {said or error.reason}") from error
        except csv.Error as error:
            raise UserError(f"path: {file}, line {lines.line_num}: {error}") from error


def _parquet(file: Path, wanted: Sequence[str]) -> Found:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            there = table.schema_arrow.names
            if twice := next((name for name in wanted if there.count(name) > 1), None):
                raise UserError(f"path: {file}: two of its columns have one name, {twice!r}")
            for batch in table.iter_batches():
                for row in rows_of(batch.select([name for name in wanted if name in there])):
                    number += 1
                    yield f"{file}, row {number}", there, row
    except UnicodeDecodeError as error:
        raise UserError(f"path: {file}: a text after row {number} is not UTF-8: {error.reason}") from error
    except (
        ArrowException,
        OSError,
        ValueError,
        OverflowError,
        LookupError,
    ) as error:  # a zone that is nowhere is a key
        raise UserError(f"path: {file} is not a parquet file that can be read: {first_line(error)}") from error


@contextmanager
def _open(file: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked."""
    import pyarrow
    from pyarrow import ArrowException

    packed = next((way for suffix, way in PACKED.items() if file.name.lower().endswith(suffix)), None)
    try:
        if packed is None:
            with file.open("rb") as plain:
                yield plain
        else:
            with pyarrow.input_stream(str(file), compression=packed) as stream:
                yield io.BufferedReader(stream)
    except (ArrowException, OSError) as error:
        verb = "read" if packed is None else "unpacked"
        raise UserError(f"path: {file} cannot be {verb}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What a library says of an error, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
