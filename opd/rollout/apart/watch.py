"""Looks after engine processes: asks several at once, and starts another in the place of one that dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from typing import Any

from opd.rollout.apart.process import STALE, EngineProcess, Gone
from opd.types import RunError

BEFORE = "; so did the one before it, asked for the same"


class Watch:
    """Engine processes by number; closed once."""

    def __init__(
        self, start: Callable[[int], EngineProcess], count: int, timeout: float,
        first: Callable[[], tuple[str, tuple[Any, ...]] | None], restarts: int, told: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Start them, and wait until all have.

        Args:
            start: Starts one, by its number.
            count: How many.
            timeout: Seconds without an answer after which one is taken for dead.
            first: What a new one in the place of another is asked before anything else; a name and arguments.
            restarts: How often one that fails or dies is replaced in one request.
            told: Is told of it.
        """
        self._start, self._timeout, self._first = start, timeout, first
        self._restarts, self._told = restarts, told
        self._table = threading.Lock()
        self._closed = False
        self._engines: list[EngineProcess] = []
        try:
            for number in range(count):
                self._engines.append(start(number))
            for number, engine in enumerate(self._engines):
                self._wait([number], time.monotonic() + timeout)
                try:
                    engine.answer()
                except Gone as gone:
                    raise RunError(f"rollout: engine {number + 1} of {count} did not start: {gone}") from gone
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        """How many engines there are."""
        return len(self._engines)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [engine.pid for engine in self._engines]

    def ask(self, name: str, requests: Mapping[int, tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Ask engines for something, all at once.

        One that fails or dies is replaced, and the new one is asked for the same again.

        Args:
            name: Method of `opd.rollout.apart.child.Answers`.
            requests: Its arguments, by engine.

        Yields:
            Engine and answer, as they come.

        Raises:
            UserError: What an engine raised.
            RunError: Likewise, or it has died, and so have those that took its place; or the watch is closed.
        """
        for number, arguments in requests.items():
            self._engines[number].ask(name, *arguments)
        waiting = set(requests)
        deadline = time.monotonic() + self._timeout
        left = dict.fromkeys(requests, self._restarts)
        while waiting:
            for number in self._wait(sorted(waiting), deadline):
                try:
                    answer = self._engines[number].answer()
                except (Gone, RunError) as error:
                    how = "ended" if isinstance(error, Gone) else "failed"
                    what = f"rollout: engine {number + 1} of {self.count} {how} while it was asked for {name}: "
                    what += str(error).removeprefix("rollout: ")
                    if not left[number]:
                        raise RunError(what + (BEFORE if self._restarts else "")) from error
                    left[number] -= 1
                    self._replace(number, what)
                    self._engines[number].ask(name, *requests[number])
                    deadline = time.monotonic() + self._timeout
                    continue
                if answer is not STALE:
                    waiting.remove(number)
                    yield number, answer

    def close(self) -> None:
        """End all processes; calling it twice is fine."""
        with self._table:
            self._closed, engines = True, self._engines
        for engine in engines:
            engine.close()

    def _wait(self, numbers: list[int], deadline: float) -> list[int]:
        """Those with something to hear, when there are some; all, killed, when it is too late."""
        pipes = {self._engines[number].pipe: number for number in numbers}
        ready = wait(list(pipes), max(0.0, deadline - time.monotonic()))
        if not ready:
            for number in numbers:
                self._engines[number].kill(f"no answer in {self._timeout:g} s (devices.timeout)")
            return numbers
        return [pipes[pipe] for pipe in ready if pipe in pipes]

    def _replace(self, number: int, what: str) -> None:
        """Start another engine in the place of a dead one, and bring it to where that one was."""
        with self._table:
            if self._closed:
                raise RunError(what)
            self._engines[number].kill()
            self._engines[number] = self._start(number)
        self._told(f"{what}; it is started again, and asked for the same")
        first = self._first()
        try:
            for name, arguments in ((None, ()), *([first] if first else [])):
                if name:
                    self._engines[number].ask(name, *arguments)
                self._wait([number], time.monotonic() + self._timeout)
                self._engines[number].answer()
        except (Gone, RunError) as gone:
            raise RunError(f"{what}; the one that took its place did not start: {gone}") from gone
