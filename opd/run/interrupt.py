"""Ctrl-C, SIGTERM and a closed terminal: the first asks the loop to finish its step and save, the second aborts."""

from __future__ import annotations

import _thread
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
from opcode import opmap
from types import FrameType, TracebackType
from typing import Any, ClassVar, NoReturn, Self

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The terminal was closed, or the connection to it; Windows has no such signal."""
MAKING = (ExtensionFileLoader.create_module.__code__, ExtensionFileLoader.exec_module.__code__)
IMPORTS = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>", importlib.__file__)
WAITS = 40
"""How often a signal that meets a module's body is sent again, every 50 ms; what torch makes so takes .2 s."""
HANDLED = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))


class Interrupted(Exception):
    """The run was stopped by a signal, with its state saved. Exit code 128 + `signal`."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signal = signum


class Launcher:
    """What the launcher of this process has passed on, if it has one.

    It alone counts signals then: a Ctrl-C at the terminal reaches this process too, before or after it is passed on.
    """

    def __init__(self) -> None:
        self.counts = False
        self.signal = 0
        self.at_once = False
        """Whether the main thread is at something that the first signal ends."""
        self._aborted = False

    def stop(self, signum: int) -> None:
        """The first signal has come; told again, it is the same one. Whichever thread calls."""
        self.signal = self.signal or signum
        if self.at_once and threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), signal.SIGINT)

    def abort(self) -> None:
        """The second one has come: KeyboardInterrupt in the main thread, whichever thread calls."""
        self._aborted = True
        os.kill(os.getpid(), signal.SIGINT)

    @property
    def aborted(self) -> bool:
        """Whether a second one has come; only the first to ask may raise it, so that what it ends can be left."""
        aborted, self._aborted = self._aborted, False
        return aborted


LAUNCHER = Launcher()
"""That of this process."""


class StopSignal:
    """Context manager that turns the first signal into a request; the second raises KeyboardInterrupt at once.

    Within `at_once` there is nothing to save, and the first one ends it.
    A hangup is never the second: the shell and the terminal both tell of the one closing.
    Whatever the code that a KeyboardInterrupt meets makes of it (Python a RuntimeError, where a class is being made),
    it is one again at the end of the block.
    """

    SIGNALS: ClassVar[tuple[int, ...]] = HANDLED
    LEFT: ClassVar[tuple[int | None, ...]] = (HANGUP,)
    """Those that stay ignored where they are: under nohup."""

    def __init__(self) -> None:
        self._own = 0
        self._raised = False
        self._waits = 0
        self._terminals: list[int] = []
        self._before: dict[int, Any] = {}
        self._at_once = False

    @property
    def signal(self) -> int:
        """The signal that has come, here or at the launcher; 0: none."""
        return LAUNCHER.signal or self._own

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal != 0

    def __enter__(self) -> Self:
        """Take the signals over, which only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return self
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]  # after a hangup they are none any more
        kept = {s for s in self.LEFT if s and signal.getsignal(s) == signal.SIG_IGN}
        self._before = {s: signal.signal(s, self._heard) for s in self.SIGNALS if s not in kept}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back; KeyboardInterrupt where one of them was made another error."""
        for s, handler in self._before.items():
            signal.signal(s, handler)
        if self._raised and error is not None and not isinstance(error, KeyboardInterrupt | Interrupted):
            raise KeyboardInterrupt from error

    @contextmanager
    def at_once(self, words: Callable[[], str]) -> Iterator[None]:
        """Let the first signal end the block, wherever it is; Interrupted with these words where one has come."""
        try:
            self._at_once = LAUNCHER.at_once = True
            if self.requested:
                self._interrupt()
            yield
        except BaseException:  # of whatever kind, where it is the signal's
            if not self._raised:
                raise
            raise Interrupted(self.signal, words()) from None
        finally:
            self._at_once = LAUNCHER.at_once = False

    def _heard(self, signum: int, frame: FrameType | None) -> None:
        if initialises(frame) or (may_initialise(frame) and self._waits < WAITS):
            self._waits += 1
            _thread.start_new_thread(again, (signum,))  # a Thread takes locks that may be held right here
        else:
            self._handle(signum, frame)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == HANGUP:
            silence(self._terminals)
        elif LAUNCHER.counts:
            if LAUNCHER.aborted:
                self._interrupt()
        elif self.signal:
            self._interrupt()
        first = not self._own
        if LAUNCHER.counts:
            LAUNCHER.stop(signum)  # whoever comes after this one has to know
        self._own = self._own or signum
        if first and self._at_once:
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        self._raised = True
        raise KeyboardInterrupt


class AbortSignal(StopSignal):
    """The same for work that leaves nothing to save: the first signal ends it at once, and later ones do not matter."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back, and name the one that has ended it."""
        ended = self._raised and error is not None and self._own != signal.SIGINT
        super().__exit__(kind, None if ended else error, trace)
        if ended:
            raise Interrupted(self._own, "stopped, nothing was written") from None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == HANGUP:
            silence(self._terminals)
        if not self._own:  # else what was started is being ended
            self._own = signum
            self._interrupt()  # an Exception would be caught by whoever does without a module


class CtrlC(AbortSignal):
    """The same for Ctrl-C alone: of whatever command, while nobody else listens."""

    SIGNALS = (signal.SIGINT,)
    LEFT = SIGNALS


def initialises(frame: FrameType | None) -> bool:
    """Whether a compiled module is being made, or imports others itself: Python that it calls must not raise.

    Some end the process then. Python's own `import` is an instruction of the frame below it; code that is compiled
    calls the machinery of imports from wherever it was called itself.
    """
    while frame is not None:
        below = frame.f_back
        if frame.f_code in MAKING or (below and frame.f_code.co_filename == IMPORTS[0] and not _imports(below)):
            return True
        frame = below
    return False


def may_initialise(frame: FrameType | None) -> bool:
    """Whether a module that is being imported has called something, which may be torch's C: that must not raise either.

    A module's own Python may be at the same instruction, and for long: who asks has to give up some time.
    """
    if frame is None or frame.f_back is None or frame.f_code.co_name != "<module>":
        return False
    return frame.f_back.f_code.co_filename in IMPORTS and not _imports(frame)


def _imports(frame: FrameType) -> bool:
    """Whether what a frame is at is an import."""
    return frame.f_code.co_filename in IMPORTS or frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_NAME"]


def again(signum: int) -> None:
    """Send this process a signal once more, in a moment."""
    time.sleep(0.05)
    os.kill(os.getpid(), signum)


def silence(terminals: Sequence[int]) -> None:
    """Let what is written to a closed terminal go nowhere: it would be an error in the middle of saving."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in terminals:
        os.dup2(nowhere, fd)
    os.close(nowhere)
