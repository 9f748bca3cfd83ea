"""What a folder holds: size and checksum of each of its files, in a file that is written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from opd.disk import files_below, read_json

NAME = "manifest.json"
READ = (".json", ".safetensors")
"""Endings of what is read beside the files that are known: what else lies there is nobody's business."""
THREADS = 4
"""Files that are read at once; hashing leaves the interpreter to others."""


def write(folder: Path) -> None:
    """Write down all files below a folder."""
    names = sorted({p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {NAME})
    sums = _sums(folder, names)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": sums[name]} for name in names}
    (folder / NAME).write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")


def difference(folder: Path, read: str | None = "") -> str | None:
    """What below a folder is not as its manifest says; None where all is.

    Args:
        folder: One that has a manifest.
        read: Beginning of the names of files whose content is read and compared; of others, or where this is None, the
            size has to do.
    """
    try:
        files = _files(folder)
        for name, (size, _) in files.items():
            place = folder / name
            if not place.is_file():
                return f"{name} is {'no file' if place.exists() else 'missing'}"
            if (found := place.stat().st_size) != size:
                return f"{name} has {found} bytes of {size}"
        if odd := sorted(_others(folder) - files.keys()):
            return f"{odd[0]} does not belong to it"
        names = [name for name in files if read is not None and name.startswith(read)]
        sums = _sums(folder, names)
        changed = next((name for name in names if sums[name] != files[name][1]), None)
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {error.strerror}"
    except ValueError as error:
        return f"{NAME}: {error}"
    return None if changed is None else f"{changed} is not what {NAME} says: its checksum differs"


def _files(folder: Path) -> Mapping[str, tuple[int, str]]:
    """Size and checksum by name; ValueError where the manifest does not say them."""
    try:
        said = read_json(folder / NAME)["files"]
        return {str(name): (int(file["size"]), str(file["sha256"])) for name, file in said.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("it cannot be read") from error


def _others(folder: Path) -> set[str]:
    """What would be read of a folder if it were there: all files of its folders, and those of known kinds beside them.

    Hidden ones are a file manager's.
    """
    found = set()
    for path in files_below(folder):
        inner = path.relative_to(folder)
        if path.is_file() and not inner.name.startswith(".") and (len(inner.parts) > 1 or path.suffix in READ):
            found.add(inner.as_posix())
    return found - {NAME}


def _sums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    def sha256(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(THREADS) as pool:
        names = list(names)
        return dict(zip(names, pool.map(sha256, names), strict=True))
