"""How a run has ended, written into its folder for those who only look at it; a killed process writes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from opd.disk import read_json, whole
from opd.hints import line
from opd.run.directory import RunFolder
from opd.run.interrupt import Interrupted
from opd.types import RunError

NAME = "ended.json"
How = Literal["done", "stopped", "aborted", "failed"]
"""All steps are done, or as many as it takes (`stop`); a signal has ended it with its state saved; two have, without;
an error has."""


@dataclass
class Ending:
    """What there is to say of a run that ends well."""

    why: str = ""
    """What ended it before its last step."""


@contextmanager
def ending(run: RunFolder) -> Iterator[Ending]:
    """Note how the block ends, where there is a run by then; one that has not got to a step leaves the note before.

    Where the folder has gone meanwhile, or another one has its name, nothing is written.
    """
    folder, begun = _stat(run.path), _size(run)
    how: How = "done"
    why, well = "", Ending()
    try:
        yield well
        why = well.why
    except BaseException as error:
        how, why = _of(error)
        raise
    finally:
        there = _stat(run.path)
        same = folder is not None and there is not None and os.path.samestat(folder, there)
        if same and (how == "done" or not (run.path / NAME).exists() or _size(run) != begun):
            note(run, how, why)


def _of(error: BaseException) -> tuple[How, str]:
    if isinstance(error, Interrupted):
        return "stopped", str(error)
    if isinstance(error, KeyboardInterrupt):
        return "aborted", "aborted by a second signal; what came after the last checkpoint is lost"
    return "failed", str(error) or type(error).__name__


def _size(run: RunFolder) -> int:
    found = _stat(run.metrics)
    return found.st_size if found else 0


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def note(run: RunFolder, how: How, why: str) -> None:
    """Write it; a disk that takes nothing any more has been told of already."""
    if not run.config.is_file():
        return
    with suppress(OSError, RunError), whole(run.path / NAME) as part:
        part.write_text(json.dumps({"how": how, "why": line(why)}) + "\n", encoding="utf-8")


def ended(run: Path) -> tuple[How, str] | None:
    """How the run in a folder has ended, and why; None where nothing is written that can be read."""
    try:
        said = read_json(run / NAME)
        how, why = said["how"], str(said["why"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return (cast(How, how), why) if how in get_args(How) else None
