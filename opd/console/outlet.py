"""Where a process talks to: one that is gone, or full, ends what is done as a closed terminal does, and is no error."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from contextlib import suppress
from typing import Any, TextIO


class Outlet(io.RawIOBase):
    """A descriptor to write to. When it takes no more, what follows goes nowhere, and the process is told of a hangup.

    So the step is finished and its state saved where there is any. A command that heeds no hangup ends as shells expect
    where nobody reads any more (`| head`), else with 1.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.lost = False
        """Whether it takes no more."""

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal that is there."""
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int | None:
        """Write some of the data; returns how many bytes, None where it would have to wait."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return None
        except OSError as error:
            if not self.lost:
                self.lost = True
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._descriptor)
                os.close(nowhere)
                hang_up(error)
            return len(data)


def hang_up(error: OSError) -> None:
    """Have the process end as it does when its terminal is closed; SystemExit where it has not said how that is."""
    if error.errno not in (errno.EPIPE, errno.EIO):  # a reader, or a terminal, that has gone
        with suppress(OSError):
            os.write(2, f"opd: what is printed cannot be written: {error.strerror}\n".encode())
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) is signal.SIG_DFL:
        raise SystemExit(128 + signal.SIGPIPE if error.errno == errno.EPIPE else 1)
    os.kill(os.getpid(), number)


def opened(descriptor: int, encoding: str = "utf-8") -> TextIO:
    """Text, line by line, to a descriptor; what its encoding lacks is escaped."""
    raw: Any = Outlet(descriptor)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=True)


def mend() -> None:
    """Have stdout and stderr be outlets, and let no file that is opened later take the place of one that was closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free: this one
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        now: TextIO | None = getattr(sys, name)
        if now is getattr(sys, f"__{name}__"):  # else somebody has put another in its place, who may have it so
            if now is not None:
                now.flush()
            setattr(sys, name, opened(descriptor, now.encoding if now else "utf-8"))
