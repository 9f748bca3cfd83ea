"""Checkpoints that come with the package: a cache that is looked at first, and only read.

`shipped/` has folders with the names that the cache gives them, with a word for people before, and their checksums in
`SHA256SUMS`, which `sha256sum --check` reads too. `python -m opd.commands.ship` makes all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from opd.types import UserError

SHELF = Path(__file__).parent / "shipped"
"""Where they are; wheels and checkouts have it at the same place."""
SUMS = "SHA256SUMS"


def find(name: str, shelf: Path = SHELF) -> Path | None:
    """The folder of that name, None where none shipped; UserError where a file of it is not as it was."""
    found = next(shelf.glob(f"*{name}"), None)
    if found is not None:
        _check(found)
    return found


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder of the shelf, by `folder/file`."""
    files = sorted(f for f in folder.iterdir() if not f.name.startswith("."))  # hidden ones are the file manager's
    return {f"{folder.name}/{f.name}": hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def write_sums(shelf: Path) -> None:
    """Write down what is on the shelf."""
    folders = sorted(f for f in shelf.iterdir() if f.is_dir())
    lines = [f"{d}  {name}\n" for folder in folders for name, d in digests(folder).items()]
    (shelf / SUMS).write_text("".join(lines), encoding="utf-8")


@cache  # once in a process
def _check(folder: Path) -> None:
    """UserError where a file was changed, is missing, or does not belong there."""
    known = {name: d for name, d in _sums(folder.parent).items() if name.startswith(f"{folder.name}/")}
    there = digests(folder)
    wrong = sorted(name for name in known.keys() | there.keys() if known.get(name) != there.get(name))
    if wrong:
        raise UserError(
            f"{folder.parent / wrong[0]}: this file is not as it came with opd (its SHA-256 differs); reinstall opd, "
            "or make the models that ship again with python -m opd.commands.ship"
        )


def _sums(shelf: Path) -> Mapping[str, str]:
    lines = (shelf / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
