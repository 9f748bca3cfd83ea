"""A chat template is somebody's program: it gets some seconds and some memory, and is refused beyond them.

Both are bounded in the main thread alone, where a signal can end it and where every template is first tried; while one
is written out, no other thread of a run allocates gigabytes.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from opd.types import Message, UserError

SECONDS = 5.0
"""Of a core that a template may take for a conversation; usual ones take milliseconds."""
MEMORY = 2**30
"""Bytes that it may take."""
FACTOR, LEAST = 100, 2**20
"""Characters that it may write, by those of the conversation, and at least."""


class Runaway(UserError):
    """A template that takes too much for any conversation."""


class _Stuck(Exception):
    """It did not come to its end."""


def written(name: str, turns: Sequence[Message], render: Callable[[], str]) -> str:
    """What a template writes of a conversation.

    Args:
        name: the template's, for messages.
        turns: the conversation.
        render: has it written out.

    Raises:
        Runaway: it takes too long, too much memory, or writes too much; other errors are the template's own.
    """
    try:
        with _bounded():
            text = render()
    except _Stuck as error:
        raise Runaway(f"{name} takes longer than {SECONDS:g} s for one conversation; use another") from error
    except RecursionError as error:
        raise Runaway(f"{name} calls itself without an end; use another") from error
    except (MemoryError, OverflowError):
        # Not what is short here: the bound is the template's.
        raise Runaway(f"{name} takes too much memory for one conversation; use another") from None
    if len(text) > max(LEAST, FACTOR * sum(len(str(value)) for turn in turns for value in turn.values())):
        raise Runaway(f"{name} writes {len(text)} characters for one conversation; use another")
    return text


@contextmanager
def _bounded() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    # Of the process's own time: a machine that sleeps, or has no time for it, is not the template's fault.
    before, (left, every) = signal.signal(signal.SIGVTALRM, _end), signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with _room():
            yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, left, every)  # somebody else's, which begins anew
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _room() -> Iterator[None]:
    """Let no more than MEMORY be allocated; no bound where the system says nothing of what is held, as on a Mac."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY
    tighter = soft == resource.RLIM_INFINITY or most < soft
    if tighter:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        if tighter:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _end(number: int, frame: FrameType | None) -> None:
    raise _Stuck
