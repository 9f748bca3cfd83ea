"""Rows from a `.jsonl` or `.parquet` file, from a dataset folder, or from the hub."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from opd.types import UserError

Row = Mapping[str, Any]
PACKAGE = "pkg://"
SUFFIXES = (".jsonl", ".parquet")


def load(
    path: str,
    *,
    columns: Sequence[str],
    subset: str | None = None,
    split: str = "train",
    limit: int | None = None,
) -> Sequence[Row]:
    """Read the named columns of the first `limit` rows.

    Args:
        path: a file (`pkg://package/file` for one that ships with a package), a dataset folder, or a hub name.
        columns: columns that every row must have; others are left out.
        subset: a dataset's configuration; files have none.
        split: a dataset's split; files have none.
        limit: rows to read, None for all of them.

    Raises:
        UserError: what is named is not there; says what is, and the nearest match.
    """
    if not is_file(path):
        return _dataset(path, columns, subset, split, limit)
    file = locate(path)
    if not file.is_file():
        there = [p.name for p in file.parent.glob("*") if p.suffix in SUFFIXES] if file.parent.is_dir() else []
        raise UserError(f"path: {path} does not exist{_choices(file.name, there, f'files in {file.parent}')}")
    rows = _jsonl(file, columns, limit) if file.suffix == ".jsonl" else _parquet(file, columns, limit)
    if not rows:
        raise UserError(f"path: {path} has no rows")
    return rows


def is_file(path: str) -> bool:
    """Tell a file from the name of a dataset or its folder: by its suffix, so that a missing file is known as one."""
    return path.endswith(SUFFIXES)


def locate(path: str) -> Path:
    """Turn a path of a config into one of this machine."""
    if path.startswith(PACKAGE):
        package, _, rest = path.removeprefix(PACKAGE).partition("/")
        return Path(str(files(package))) / rest
    return Path(path).expanduser()


def _jsonl(file: Path, columns: Sequence[str], limit: int | None) -> list[Row]:
    rows: list[Row] = []
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            if limit is not None and len(rows) >= limit:
                break
            if not raw.strip():
                continue
            try:
                line = raw.decode()
                row = json.loads(line)
            except UnicodeDecodeError as error:
                raise UserError(f"path: {file}, line {number} is not UTF-8: {error.reason}") from error
            except json.JSONDecodeError as error:
                raise UserError(f"path: {file}, line {number} is not JSON: {error.msg}") from error
            if not isinstance(row, dict):
                raise UserError(f"path: {file}, line {number} is not an object but {line.strip()[:40]}")
            _require(columns, row, f"{file}, line {number}")
            rows.append({name: row[name] for name in columns})
    return rows


def _parquet(file: Path, columns: Sequence[str], limit: int | None) -> list[Row]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    try:
        _require(columns, pq.read_schema(file).names, str(file))
        table = pq.read_table(file, columns=list(columns))
    except ArrowInvalid as error:
        raise UserError(f"path: {file} is not a parquet file") from error
    rows: list[Row] = table.slice(0, limit).to_pylist()
    return rows


def _dataset(path: str, columns: Sequence[str], subset: str | None, split: str, limit: int | None) -> Sequence[Row]:
    """Read through the `datasets` library: a folder that it saved, a folder of data files, or a hub name."""
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
    rows: Sequence[Row] = table.select_columns(list(columns))
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
