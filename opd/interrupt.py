"""Ctrl-C and SIGTERM: the first one asks the loop to finish its step and save, the second one aborts."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run was stopped by a signal, with its state saved. Exit code 128 + `signal`."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signal = signum


class StopSignal:
    """Context manager that turns the first signal into a request; the second raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal != 0

    def __enter__(self) -> Self:
        """Take the signals over."""
        self._before = {s: signal.signal(s, self._handle) for s in HANDLED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for s, handler in self._before.items():
            signal.signal(s, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = signum
