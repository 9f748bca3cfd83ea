"""A work folder belongs to one `opd recipe run` at a time, and holds nothing but what such runs have made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opd.disk import lock
from opd.recipe.stamps import DONE, STARTED
from opd.run.directory import RunFolder, refuse_unwritable
from opd.types import UserError

LOCK = ".lock"


def refuse_foreign(folder: Path) -> None:
    """UserError where a folder cannot be written to, or holds what no `opd recipe run` has made."""
    refuse_unwritable(RunFolder(folder), "name another one by --work DIR")
    made = any((folder / kind).is_dir() for kind in (STARTED, DONE))
    if folder.is_dir() and any(folder.iterdir()) and not made:
        raise UserError(
            f"--work {folder}: the folder is not empty, and `opd recipe run` has not made it; name a new one"
        )


@contextmanager
def claimed(folder: Path) -> Iterator[int]:
    """Make a folder and keep other runs out of it; gives the open file that does.

    A process that inherits the file keeps them out too: a stage that outlives its parent still writes there.

    Raises:
        UserError: another one is at work there, or it is no folder of `opd recipe run`.
    """
    refuse_foreign(folder)
    (folder / STARTED).mkdir(parents=True, exist_ok=True)  # first of all: it says whose folder this is
    with (folder / LOCK).open("ab") as file:
        try:
            lock(file, wait=False)
        except BlockingIOError as e:
            raise UserError(
                f"--work {folder}: another `opd recipe run` is at work there, or a stage that one has left behind; "
                f"`fuser {folder / LOCK}` names the processes"
            ) from e
        yield file.fileno()
