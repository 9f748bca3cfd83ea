"""Whose code an error comes from: a mistake in a part of one's own is told with its file and line."""

from __future__ import annotations

import functools
import os
import site
import sysconfig
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from opd.config.trust import OURS, others
from opd.types import PartError

PACKAGE = Path(__file__).resolve().parent.parent


@contextmanager
def blaming(settings: Any) -> Iterator[None]:
    """Tell errors of parts that do not ship with opd, which a config's settings name, by file and line."""
    try:
        yield
    except Exception as error:  # a part of the user's may raise anything
        if _no_fault(error) or not place(error, others(settings)):
            raise
        raise PartError(f"{told(error, others(settings))}; see it with --debug") from error


def _no_fault(error: Exception) -> bool:
    """Whether it is the machine that has refused something."""
    from opd.devices.shortage import shortage
    from opd.disk import refusal

    return bool(shortage(error) or refusal(error))


def told(error: BaseException, modules: Collection[str]) -> str:
    """An error as Python prints it, after the `FILE:LINE: ` in code of `modules` that it comes from."""
    at = place(error, modules)
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{at}{': ' if at else ''}{type(error).__name__}{': ' if what else ''}{what[:300]}"


def place(error: BaseException, modules: Collection[str]) -> str:
    """`FILE:LINE` where an error has come from code of `modules`, or from what they call that is no library.

    Where opd has raised it for them, that place too. Empty: they have no part in it, or it is one of opd's own errors,
    which are for people as they are (a UserError, a signal, a lost rank).
    """
    if type(error).__module__.split(".")[0] in OURS:
        return ""
    if isinstance(error, SyntaxError) and error.filename and not _library(error.filename):
        return f"{_near(error.filename)}:{error.lineno}"
    found, raised = "", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if _of(frame, modules) or (found and not _library(file) and not _ours(file)):
            found, raised = f"{_near(file)}:{line}", ""
        elif found and _ours(file):
            raised = f" (in opd/{Path(file).resolve().relative_to(PACKAGE)}:{line})"
    return found + raised


def _of(frame: FrameType, modules: Collection[str]) -> bool:
    return frame.f_globals.get("__name__") in modules and not _ours(frame.f_code.co_filename)


def _ours(file: str) -> bool:
    return Path(file).resolve().is_relative_to(PACKAGE)


@functools.cache
def _libraries() -> tuple[str, ...]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(os.path.realpath(p) for p in (*paths, *site.getsitepackages(), site.getusersitepackages()) if p)


def _library(file: str) -> bool:
    """Whether a file is Python's or an installed package's, or there is none."""
    return file.startswith("<") or os.path.realpath(file).startswith(_libraries())


def _near(file: str) -> str:
    """A path from where one stands, if it is below; else the whole."""
    path = Path(file).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
