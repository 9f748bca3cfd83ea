"""A terminal that only one writer draws on: everything else that is printed meanwhile is caught and handed over."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import threading
from types import FrameType
from typing import BinaryIO, TextIO

import rich.console

from opd.console.outlet import opened

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
SIGNALS = ("SIGTERM", "SIGHUP", "SIGTSTP")


class Terminal:
    """Takes the descriptors 1 and 2 away from everyone else, where they are terminals, and gives them back.

    Replacing `sys.stdout` would not do: log handlers keep the stream they were made with, and C++ libraries and child
    processes write to the descriptor. What they write goes to a file without a name, not to a pipe, so that nobody ever
    waits for a reader and children that live longer do not die of a closed pipe.
    """

    def __init__(self, stream: TextIO) -> None:
        """Open a second way to the terminal behind `stream`; nothing is taken yet."""
        self._file = opened(os.dup(stream.fileno()))
        self.console = rich.console.Console(file=self._file, force_terminal=True, highlight=False, emoji=False)
        self.fit()
        self.drawing = False
        """Whether the cursor is hidden."""
        self._saved: dict[int, int] = {}
        self._spool: BinaryIO | None = None
        self._read, self._rest = 0, b""
        self._handled: list[signal.Signals] = []
        self._faults = False
        self.stale = False
        """Set when the process was stopped and went on: the shell has written over the picture."""

    def fit(self) -> bool:
        """Take over the size of the terminal, and say whether it has become wider or narrower.

        Rich would ask descriptors 0 to 2, which may be something else by now.
        """
        before = self.console.width
        try:
            columns, lines = os.get_terminal_size(self._file.fileno())
        except OSError:  # it was closed
            return False
        self.console.size = rich.console.ConsoleDimensions(columns or 80, lines or 25)
        return self.console.width != before

    def take(self) -> None:
        """Catch what others print from now on, and give the terminal back if a signal ends the process."""
        flush()
        self._spool = spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open until close()
        for descriptor in (1, 2):
            if os.isatty(descriptor):
                self._saved[descriptor] = os.dup(descriptor)
                os.dup2(spool.fileno(), descriptor)
        self._echo_keys(False)
        if not faulthandler.is_enabled():
            faulthandler.enable(self._file)  # a crash in native code must not end up in the spool
            self._faults = True
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)  # Windows knows SIGTERM only
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, self._on_signal)
                    self._handled.append(number)

    def caught(self, *, all_of_it: bool = False) -> list[str]:
        """Return the lines that others have printed since the last call; of a progress bar only what it ended on."""
        if self._spool is None:
            return []
        size = os.fstat(self._spool.fileno()).st_size
        data = self._rest + os.pread(self._spool.fileno(), size - self._read, self._read)
        self._read = size
        *lines, self._rest = data.split(b"\n")
        if all_of_it and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        return [line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode("utf-8", "replace") for line in lines]

    def give_back(self) -> list[str]:
        """Let everyone print again, and return what was caught last."""
        flush()
        for descriptor, saved in self._saved.items():
            os.dup2(saved, descriptor)
            os.close(saved)
        self._saved = {}
        for number in self._handled:
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, signal.SIG_DFL)
        self._handled = []
        self._echo_keys(True)
        if self._faults:
            faulthandler.disable()
            self._faults = False
        return self.caught(all_of_it=True)

    def close(self) -> None:
        """Close what was opened, after `give_back`."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._file.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Show the cursor, then let the signal do what it does; only a stopped process comes back from that."""
        self._echo_keys(True)
        if self.drawing:
            os.write(self._file.fileno(), f"\n{SHOW_CURSOR}".encode())
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        signal.signal(number, self._on_signal)
        self._echo_keys(False)
        if self.drawing:
            os.write(self._file.fileno(), HIDE_CURSOR.encode())
        self.stale = True

    def _echo_keys(self, on: bool) -> None:
        """Let the terminal print `^C` or not: it would push the panel up by a line."""
        if termios is None or self._file.closed or not self._file.isatty() or not foreground(self._file.fileno()):
            return
        settings = termios.tcgetattr(self._file.fileno())
        settings[3] = settings[3] | termios.ECHOCTL if on else settings[3] & ~termios.ECHOCTL
        termios.tcsetattr(self._file.fileno(), termios.TCSANOW, settings)


def foreground(descriptor: int) -> bool:
    """Whether the terminal is this process's to draw on; a job in the background must leave it to the shell."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except (OSError, AttributeError):  # not the controlling terminal; not a POSIX system
        return True


def flush() -> None:
    """Send on what Python still holds, to where the descriptors lead now."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
