"""An engine in a process of its own, at the other end of a pipe."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any
from uuid import uuid4

from opd.children import SAFE
from opd.devices.leftovers import sweep
from opd.rollout.apart.child import DEAF, ENGINE, serve
from opd.types import Pretrained
from opd.writing import Engine

PATIENCE = 20.0
"""Seconds that an idle engine has to free its memory, and that of its workers, before it is killed."""
STALE = object()
"""An answer that nobody waits for any more: its call was interrupted."""
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OPD_STORE")
NOT_THEIRS = (*RANKS, "TORCHELASTIC_USE_AGENT_STORE")
"""Variables of a rank's: an engine that read them would wait for the others."""
_starting = threading.Lock()


class Gone(Exception):
    """The process has ended, or was taken for dead; says why."""


class EngineProcess:
    """Any engine, unchanged, that is asked one thing after another; the first answer says that it has started."""

    def __init__(
        self, engine: Engine, model: Pretrained, *, max_len: int, seed: int, threads: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Start the process; does not wait for the engine.

        Args:
            engine: Its settings.
            model: What it loads.
            max_len: As for `Engine.start`.
            seed: Likewise.
            threads: Torch threads.
            env: Variables that differ from this process's; read before anything is imported there.
        """
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self._name = uuid4().hex  # a container may have a process of the same number
        arguments = (far, os.getpid(), engine, model, max_len, seed, threads)
        self._process = context.Process(target=serve, args=arguments, name="opd engine")
        self._asked, self._heard = 0, -1
        self._why = ""
        # Before multiprocessing's own, which would wait for it.
        atexit.register(self.kill)
        try:
            with _starting, born_with({"OMP_NUM_THREADS": str(threads), ENGINE: self._name} | dict(env or {})):
                self._process.start()
        except BaseException:  # also somebody's Ctrl-C, behind whose back it may have started
            self.kill()
            raise
        far.close()  # so that its end is seen here

    @property
    def pid(self) -> int:
        """The process."""
        return int(self._process.pid or 0)

    def ask(self, name: str, *arguments: Any) -> None:
        """Send a request; that the process has gone shows in `answer`."""
        self._asked += 1
        with suppress(OSError):
            self.pipe.send((self._asked, name, arguments))

    def answer(self) -> Any:
        """Wait for the next message, and give it: the answer to the last request, or to its start; `STALE`: an older.

        Raises:
            Gone: It has ended.
            UserError: What the engine raised.
            RunError: What the engine raised, in words where it was something else.
        """
        try:
            number, found = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise Gone(self._ended()) from error
        self._heard = number
        if isinstance(found, Exception) and number in (0, self._asked):
            raise found
        return found if number == self._asked else STALE

    def kill(self, why: str = "") -> None:
        """End the process at once, whatever it is doing, and all that it has started; `why` is what `answer` says."""
        self._why = self._why or why
        atexit.unregister(self.kill)
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        sweep(f"{ENGINE}={self._name}")  # workers that wait for each other, or are stopped, do not see that it is gone

    def close(self) -> None:
        """End the process; an engine that is at nothing frees what it has by itself."""
        if self._heard == self._asked and self._process.is_alive():
            self.ask("close")
            self._process.join(PATIENCE)
        self.kill("it was closed")

    def _ended(self) -> str:
        """How it ended."""
        self._process.join(1.0)
        code = self._process.exitcode
        if self._why or code is None:
            return self._why or "its pipe is closed"
        if code == -signal.SIGKILL:
            return "it was killed (SIGKILL): by somebody, or by the system for want of memory"
        return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it exited with code {code}"


@contextmanager
def born_with(env: Mapping[str, str]) -> Iterator[None]:
    """Start processes inside this: they get other variables, and no signal before they can ignore it."""
    resource_tracker.ensure_running()  # of this process, not theirs; it unblocks signals when it is started
    env = {**env, **SAFE}
    before = {name: os.environ.pop(name, None) for name in {*env, *NOT_THEIRS}}
    os.environ.update(env)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
