"""Memory that was asked for and is not there: which errors say so, of whatever library, and in which phase it was."""

from __future__ import annotations

import errno
import gc
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from opd.types import RunError

SIGNS = (
    "out of memory", "allocate memory", "unable to allocate", "not enough memory", "bad_alloc", "alloc_failed",
    "no available memory for the cache", "kv cache is needed", "less than desired", "less than requested memory",
    "can't start new thread", "failed to map segment", "could not create a primitive",
)  # fmt: skip
"""Words of torch's, CUDA's, oneDNN's, vLLM's and Python's messages; threads and libraries that are loaded late take
memory, too."""
KINDS = (RuntimeError, ValueError, ImportError, OSError)
"""Of errors in which these words mean it."""


class Shortage(RunError):
    """Memory was short in a phase, the last of `phases`, which is a part of those before it."""

    def __init__(self, asked: str, phases: tuple[str, ...] = ()) -> None:
        """`asked`: what was asked for, in a library's words."""
        super().__init__(asked, phases)  # as it is pickled, for other processes
        self.asked, self.phases = asked, phases

    def __str__(self) -> str:
        inner = f" ({', '.join(self.phases[1:])})" if self.phases[1:] else ""
        return f"out of memory{''.join(f' in {name}' for name in self.phases[:1])}{inner}: {self.asked}"

    def inside(self, phase: str) -> Self:
        """The same, in a phase that those known so far are parts of."""
        return type(self)(self.asked, (phase, *(name for name in self.phases if name != phase)))


def shortage(error: BaseException | None) -> Shortage | None:
    """What an error says of a want of memory, be it the error itself or what has led to it; None: it is another one."""
    while error is not None:
        if isinstance(error, Shortage):
            return error
        if _says(error):
            return Shortage(_first(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _says(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return isinstance(error, KINDS) and any(sign in text for sign in SIGNS)


def _first(error: BaseException) -> str:
    """The sentence that says how much was asked for, else the first line."""
    text = " ".join(str(error).split())
    for sign in ("you tried to allocate", "Tried to allocate", "Unable to allocate"):
        if sign in text:
            said = text[text.index(sign) :].split(". ")[0].rstrip(".").removeprefix("you ")
            return re.sub(r"(\d+) bytes", _gib, said[0].lower() + said[1:])
    return text.split(". ")[0][:200].rstrip(".") or "the system gave no more"


def _gib(found: re.Match[str]) -> str:
    return f"{int(found[1]) / 2**30:.3g} GiB"


@contextmanager
def during(phase: str) -> Iterator[None]:
    """A want of memory inside, whatever it was raised as, is a `Shortage` in this phase.

    What the functions held that were left by it is free again: it would be missing in what is done about it.
    """
    try:
        yield
    except Exception as error:  # each library has its own kind for it; all others go on as they are
        found = shortage(error)
        if found is None:
            raise
        release(error)
        raise found.inside(phase) from error


def release(error: BaseException | None) -> None:
    """Let go of all that an error, and what has led to it, keeps alive."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
