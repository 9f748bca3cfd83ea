"""Rows from files of any usual kind, from a folder of them, from a dataset folder, or from the hub."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from opd.models import hub
from opd.models.there import is_path
from opd.places import typed
from opd.tasks.arrow import Saved
from opd.tasks.placed import Placed
from opd.tasks.readers import OTHERS, PACKED, SUFFIXES, first_line, kind_of, read
from opd.types import UserError

Row = Mapping[str, Any]
PACKAGE = "pkg://"
CHATS = ("messages", "conversations", "conversation")
"""How columns of chats are called."""
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
) -> Sequence[Placed]:
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
    try:
        place.exists()
    except OSError as error:
        raise UserError(f"path: {path[:60]}...: {error.strerror}; name a file or a folder that there is") from error
    if is_file(path) and not place.is_dir():
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


def away(task: Any) -> str:
    """The rows of a task that only a hub can have; empty where they are here, or should be, or are made."""
    named = [getattr(task, key, None) for key in ("path", "eval_path")]
    return next((path for path in named if isinstance(path, str) and _of_a_hub(path)), "")


def _of_a_hub(path: str) -> bool:
    if is_file(path) or is_path(path) or path.startswith(PACKAGE) or path.lower().endswith(OTHERS):
        return False
    try:
        return not locate(path).exists()
    except OSError:  # no disk takes this name, and reading it will say so
        return False


def is_file(path: str) -> bool:
    """Tell a file from the name of a dataset or its folder: by its suffix, so that a missing file is known as one."""
    return kind_of(path) is not None


def locate(path: str) -> Path:
    """Turn a path of a config into one of this machine."""
    if path.startswith(PACKAGE):
        package, _, rest = path.removeprefix(PACKAGE).partition("/")
        top, *inner = package.split(".")
        try:
            found = find_spec(top) if top else None  # of the top one alone: nothing of it is imported
        except (ImportError, ValueError) as error:
            raise _no_package(path, package) from error
        if found is None or not found.submodule_search_locations:
            raise _no_package(path, package)
        return Path(found.submodule_search_locations[0], *inner, rest)
    return typed(path)


def _no_package(path: str, package: str) -> UserError:
    return UserError(f"path: {path}: there is no package {package!r}; pkg:// is followed by PACKAGE/FILE")


def _rows_of(parts: Sequence[Path], columns: Sequence[str], further: Sequence[str]) -> Iterator[Placed]:
    """The named columns of the rows of several files, one after the other."""
    first: tuple[Path, list[str]] | None = None
    wanted = (*columns, *further)
    for file in parts:
        for where, there, row in read(file, wanted):
            if first is None:
                first = file, sorted(there)
            missing = next((name for name in columns if name not in there), None)
            if missing is not None and file != first[0]:
                raise UserError(
                    f"path: {where}: no column {missing!r}; columns there: {', '.join(sorted(there))}; in "
                    f"{first[0].name}: {', '.join(first[1])}"
                )
            if missing == columns[0] and (chat := next((n for n in CHATS if n in there), None)):
                raise UserError(f"{where}: no column {missing!r}; its chats are named by prompt_column={chat}")
            _require(columns, there, where)
            yield Placed(where, {name: row[name] for name in wanted if name in row})


def _is_dataset(folder: Path) -> bool:
    """Whether a folder says itself how it is to be read, so that the `datasets` library has to."""
    card = folder / "README.md"
    own = ("dataset_dict.json", "state.json", "dataset_infos.json")
    return any((folder / name).is_file() for name in own) or (
        card.is_file() and "configs:" in card.read_text("utf-8", errors="replace")
    )


def _parts(folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder, by the words of their names; where no name says a split, all are for training.

    Raises:
        UserError: there is none.
    """
    try:
        there = sorted(p for p in folder.rglob("*") if p.is_file() and is_file(p.name) and not p.name.startswith("."))
    except (OSError, RecursionError) as error:
        raise UserError(f"path: {folder} cannot be looked through: {error}; name the folder of the rows") from error
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
    if wanted in by_split and "" in by_split:
        odd = ", ".join(str(file.relative_to(folder)) for file in by_split[""][:5])
        raise UserError(
            f"path: {folder}: the names of some files say a split, and those of others none: {odd}; rename them, as "
            "train-2.jsonl, or move them elsewhere"
        )
    if wanted not in by_split:
        known = ", ".join(sorted(filter(None, by_split))) or "train"
        raise UserError(f"path: {folder}: no file is of the split {split!r}; by their names there are: {known}")
    return by_split[wanted]


def _dataset(
    path: str, columns: Sequence[str], further: Sequence[str], subset: str | None, split: str, limit: int | None
) -> Sequence[Placed]:
    """Read through the `datasets` library: a folder that it saved or that has a card, or a hub name."""
    import datasets

    folder = locate(path)
    if folder.is_file():
        raise UserError(
            f"path: {path} is a file of no known kind; allowed are {', '.join(SUFFIXES)}, also packed as "
            f"{', '.join(PACKED)}"
        )
    if not folder.exists() and (is_path(path) or path.lower().endswith(OTHERS)):
        there = [p.name for p in folder.parent.glob("*")] if folder.parent.is_dir() else []
        raise UserError(f"path: {path} does not exist{_choices(folder.name, there, f'in {folder.parent}')}")
    try:
        if (folder / "dataset_dict.json").is_file():
            whole = datasets.load_from_disk(str(folder))
            _require([split], whole, f"{path}", noun="split")
            table = whole[split]
        elif (folder / "state.json").is_file():
            table = datasets.load_from_disk(str(folder))
        else:
            with hub.asked(str(folder)):
                table = datasets.load_dataset(str(folder) if folder.is_dir() else path, subset, split=split)
    # Unknown names, subsets and splits, a hub out of reach, a damaged folder: the library's own words say which.
    except Exception as error:  # and each library beneath it has its own kind of error for a damaged file
        where = f"path: {path}, subset {subset}, split {split}"
        raise UserError(f"{where}: not a local file or folder, and no dataset: {first_line(error)}") from error
    _require(columns, table.column_names, path)
    table = table.select_columns([*columns, *(n for n in further if n in table.column_names)])
    return Saved(table if limit is None else table.select(range(min(limit, len(table)))), path)


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
