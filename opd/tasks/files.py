"""Rows from files of any usual kind, from a folder of them, from a dataset folder, or from the hub."""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from opd.tasks.cells import Written
from opd.types import UserError

Row = Mapping[str, Any]
PACKAGE = "pkg://"
TABLES = {".csv": ",", ".tsv": "\t"}
"""What separates the columns of a table that is text."""
PACKED = (".gz", ".zst", ".bz2")
SUFFIXES = (".jsonl", ".json", *TABLES, ".parquet")
"""Kinds of files; all but parquet may be packed as well."""
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
"""Splits of a folder, and how its files or folders call them."""


def load(
    path: str,
    *,
    columns: Sequence[str],
    further: Sequence[str] = (),
    subset: str | None = None,
    split: str = "train",
    limit: int | None = None,
) -> Sequence[Row]:
    """Read the named columns of the first `limit` rows.

    Args:
        path: a file (`pkg://package/file` for one that ships with a package), a folder of files, a dataset folder, or
            a hub name.
        columns: columns that every row must have; others are left out.
        further: columns that are read where they are there.
        subset: a dataset's configuration; files have none.
        split: a dataset's split; files have none.
        limit: rows to read, None for all of them.

    Raises:
        UserError: what is named is not there or cannot be read; says what is, and the nearest match.
    """
    place = locate(path)
    if is_file(path):
        if not place.is_file():
            there = [p.name for p in place.parent.glob("*") if is_file(p.name)] if place.parent.is_dir() else []
            raise UserError(f"path: {path} does not exist{_choices(place.name, there, f'files in {place.parent}')}")
        parts = [place]
    elif place.is_dir() and not _is_dataset(place) and subset is None:
        parts = _parts(place, split)
    else:
        return _dataset(path, columns, further, subset, split, limit)
    rows = list(itertools.islice(_rows_of(parts, columns, further), limit))
    if not rows:
        raise UserError(f"path: {path} has no rows")
    return rows


def is_file(path: str) -> bool:
    """Tell a file from the name of a dataset or its folder: by its suffix, so that a missing file is known as one."""
    return kind_of(path) is not None


def kind_of(path: str) -> str | None:
    """The suffix that says what is in a file, packed or not; None for others."""
    name = path.lower()
    bare = next((name.removesuffix(p) for p in PACKED if name.endswith(p)), name)
    kind = next((s for s in SUFFIXES if bare.endswith(s)), None)
    return None if kind == ".parquet" and bare != name else kind


def locate(path: str) -> Path:
    """Turn a path of a config into one of this machine."""
    if path.startswith(PACKAGE):
        package, _, rest = path.removeprefix(PACKAGE).partition("/")
        return Path(str(files(package))) / rest
    return Path(path).expanduser()


def _rows_of(parts: Sequence[Path], columns: Sequence[str], further: Sequence[str]) -> Iterator[Row]:
    """The named columns of the rows of several files, one after the other."""
    first: tuple[Path, list[str]] | None = None
    for file in parts:
        read = {".parquet": _parquet, ".json": _json, ".jsonl": _jsonl}.get(str(kind_of(file.name)), _table)
        for where, row in read(file):
            if first is None:
                first = file, sorted(row)
            missing = next((name for name in columns if name not in row), None)
            if missing is not None and file != first[0]:
                raise UserError(
                    f"path: {where}: no column {missing!r}; columns there: {', '.join(sorted(row))}; in "
                    f"{first[0].name}: {', '.join(first[1])}"
                )
            _require(columns, row, where)
            _check_text(row, where)
            yield {name: row[name] for name in (*columns, *further) if name in row}


def _jsonl(file: Path) -> Iterator[tuple[str, Row]]:
    with _open(file) as lines:
        for number, raw in enumerate(lines, start=1):
            if raw.strip():
                yield _mapping(_parsed(raw, f"{file}, line {number}"), f"{file}, line {number}")


def _json(file: Path) -> Iterator[tuple[str, Row]]:
    """One list of objects, or lines like those of `.jsonl`."""
    with _open(file) as stream:
        whole = stream.read()
    if not whole.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        for number, raw in enumerate(whole.splitlines(), start=1):
            if raw.strip():
                yield _mapping(_parsed(raw, f"{file}, line {number}"), f"{file}, line {number}")
        return
    for number, row in enumerate(_parsed(whole, str(file)), start=1):
        yield _mapping(row, f"{file}, item {number}")


def _mapping(row: Any, where: str) -> tuple[str, Row]:
    if not isinstance(row, dict):
        raise UserError(f"path: {where} is not an object but {repr(row)[:40]}")
    return where, row


def _parsed(raw: bytes, where: str) -> Any:
    """A value of JSON; numbers keep how they were written."""
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_float=Written)
    except UnicodeDecodeError as error:
        raise UserError(f"path: {where} is not UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"path: {where} is not JSON: {error.msg}") from error
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"path: {where} holds a number that cannot be read: {str(error).split(';')[0]}") from error
    except RecursionError as error:
        raise UserError(f"path: {where} is nested too deeply to be read") from error


def _table(file: Path) -> Iterator[tuple[str, Row]]:
    """Rows of a text table whose first line names the columns; every cell is a text."""
    separator = TABLES[str(kind_of(file.name))]
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a cell may hold a whole document
    with _open(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, delimiter=separator, strict=True)
        try:
            names = next(lines, [])
            if len(set(names)) < len(names):
                raise UserError(f"path: {file}: two of its columns have one name: {', '.join(names)}")
            for cells in lines:
                where = f"{file}, line {lines.line_num}"
                if cells and len(cells) != len(names):
                    raise UserError(f"path: {where} has {len(cells)} cells, and there are {len(names)} columns")
                if cells:
                    yield where, dict(zip(names, cells, strict=True))
        except UnicodeDecodeError as error:
            raise UserError(f"path: {file}, line {lines.line_num + 1} is not UTF-8: {error.reason}") from error
        except csv.Error as error:
            raise UserError(f"path: {file}, line {lines.line_num}: {error}") from error


def _parquet(file: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        with pq.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
    except (ArrowException, OSError) as error:
        raise UserError(f"path: {file} is not a parquet file that can be read: {_first_line(error)}") from error


@contextmanager
def _open(file: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked."""
    import pyarrow
    from pyarrow import ArrowException

    if not file.name.lower().endswith(PACKED):
        with file.open("rb") as plain:
            yield plain
        return
    try:
        with pyarrow.input_stream(str(file), compression="detect") as packed:
            yield io.BufferedReader(packed)
    except (ArrowException, OSError) as error:
        raise UserError(f"path: {file} cannot be unpacked: {_first_line(error)}") from error


def _check_text(row: Row, where: str) -> None:
    """Refuse half of a character, which no tokenizer reads: JSON can hold one half of what UTF-16 writes in two."""
    for name, cell in row.items():
        try:
            str(cell).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise UserError(
                f"path: {where}: column {name!r} holds half of a character ({half}); a text was cut within an emoji"
            ) from error
        except RecursionError as error:
            raise UserError(f"path: {where}: column {name!r} is nested too deeply to be read") from error


def _is_dataset(folder: Path) -> bool:
    """Whether a folder says itself how it is to be read, so that the `datasets` library has to."""
    card = folder / "README.md"
    own = ("dataset_dict.json", "state.json", "dataset_infos.json")
    return any((folder / name).is_file() for name in own) or (card.is_file() and "configs:" in card.read_text("utf-8"))


def _parts(folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder, by the words of their names; where no name says a split, all are for training.

    Raises:
        UserError: there is none.
    """
    there = sorted(p for p in folder.rglob("*") if p.is_file() and is_file(p.name) and not p.name.startswith("."))
    if not there:
        raise UserError(f"path: {folder} holds no file of rows; allowed are {', '.join(SUFFIXES)}, packed or not")
    by_split: dict[str, list[Path]] = {}
    for file in there:
        words = set("".join(c if c.isalnum() else " " for c in str(file.relative_to(folder)).lower()).split())
        name = next((s for s, names in SPLITS.items() if words & set(names)), "")
        by_split.setdefault(name, []).append(file)
    wanted = next((s for s, names in SPLITS.items() if split in names), split)
    if by_split.keys() == {""} and wanted == "train":
        return there
    if wanted not in by_split:
        known = ", ".join(sorted(filter(None, by_split))) or "train"
        raise UserError(f"path: {folder}: no file is of the split {split!r}; by their names there are: {known}")
    return by_split[wanted]


def _dataset(
    path: str, columns: Sequence[str], further: Sequence[str], subset: str | None, split: str, limit: int | None
) -> Sequence[Row]:
    """Read through the `datasets` library: a folder that it saved or that has a card, or a hub name."""
    import datasets

    folder = locate(path)
    if folder.is_file():
        raise UserError(f"path: {path} is a file of no known kind; allowed are {', '.join(SUFFIXES)}")
    if (folder / "dataset_dict.json").is_file():
        whole = datasets.load_from_disk(str(folder))
        _require([split], whole, f"{path}", noun="split")
        table = whole[split]
    elif (folder / "state.json").is_file():
        table = datasets.load_from_disk(str(folder))
    else:
        try:
            table = datasets.load_dataset(str(folder) if folder.is_dir() else path, subset, split=split)
        # Unknown names, subsets and splits, a hub out of reach: the library's own words say which.
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            where = f"path: {path}, subset {subset}, split {split}"
            raise UserError(f"{where}: not a local file or folder, and no dataset: {_first_line(error)}") from error
    _require(columns, table.column_names, path)
    rows: Sequence[Row] = table.select_columns([*columns, *(n for n in further if n in table.column_names)])
    return rows if limit is None else rows.select(range(min(limit, len(rows))))  # type: ignore[attr-defined]


def _require(names: Sequence[str], there: Iterable[str], where: str, noun: str = "column") -> None:
    """Raise UserError for the first name that is not there."""
    known = list(there)
    for name in names:
        if name not in known:
            raise UserError(f"{where}: no {noun} {name!r}{_choices(name, known, f'{noun}s there')}")


def _choices(given: str, there: Sequence[str], what: str) -> str:
    match = difflib.get_close_matches(given, there, n=1, cutoff=0.5)
    near = f", did you mean {match[0]}?" if match else ""
    return f"{near}; {what}: {', '.join(sorted(there)[:20])}" if there else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
