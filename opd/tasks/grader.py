"""Scoring in a process of its own: what a model wrote may take for ever to score, or try to do something.

Answers are read by parsers and algebra that were not made for hostile text. A child process can be killed at any time
and from any thread, also inside one long operation (`9**9**9`), and it may neither write a file, nor start a program,
nor use the network. It ends by itself when this process does, however that happens: its input is then closed.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

from opd import children
from opd.types import RunError

Make = Callable[..., Callable[..., float]]
START_SECONDS = 120.0  # sympy's import, on a slow disk
MEMORY = 4 << 30  # bytes of address space, against expressions that grow without end
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads' stacks are address space too
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED = ("os.", "subprocess.", "socket.", "shutil.", "pty.", "signal.", "ftplib.", "smtplib.", "urllib.")
_READING = frozenset({"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv"})


class Grader:
    """Scores answers, one at a time; any thread may ask."""

    def __init__(self, seconds: float = 5.0) -> None:
        """Set the time for one answer; the child starts at the first one."""
        self.seconds = seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._made: set[Hashable] = set()

    def score(self, make: Make, settings: tuple[Hashable, ...], *given: Any) -> float:
        """Give `make(*settings)(*given)` as the child finds it; 0 where that raises or takes too long.

        Args:
            make: a function of a module, which the child imports; called once, and its time is not limited so tightly.
            settings: what it is called with.
            given: the answer, and what else its scorer takes.
        """
        key = (make, settings)
        with self._lock:
            if self._child is None or self._child.poll() is not None or key not in self._made:
                self._prepare(key)
            reply = self._ask((key, given), self.seconds)
            if reply is None:
                self._stop()
            return 0.0 if reply is None else float(reply)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._stop()

    def _prepare(self, key: tuple[Make, tuple[Hashable, ...]]) -> None:
        """See that there is a child, and that it has made this scorer."""
        command = children.command("opd.tasks.grader")
        if self._child is None or self._child.poll() is not None:
            self._stop()
            pipe = subprocess.PIPE
            # Its own session: Ctrl-C is for this process, which may still have answers to grade before it stops.
            self._child = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True,
                env=children.environment() | _ONE_THREAD,
            )  # fmt: skip
            assert self._child.stdin is not None
            pickle.dump(sys.path, self._child.stdin)  # scorers may be of modules of one's own
        if self._ask((key, None), START_SECONDS) != b"ready":
            self._stop()
            raise RunError(f"the grader of answers did not start: run {' '.join(command)} to see why")
        self._made.add(key)

    def _ask(self, request: Any, seconds: float) -> bytes | None:
        """Send a request and wait for its line; None where none comes in time, or the child has ended."""
        child = self._child
        assert child is not None and child.stdin is not None
        try:
            child.stdin.write(pickle.dumps(request))
            child.stdin.flush()
            return _line(child, seconds)
        except BrokenPipeError:
            return None
        except BaseException:
            self._stop()  # else the next answer would get this one's line
            raise

    def _stop(self) -> None:
        self._made.clear()
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


@functools.cache
def grader() -> Grader:
    """Give the process's one grader: a child costs a second and 100 MB, and grading is short."""
    one = Grader()
    atexit.register(one.close)
    return one


def _line(child: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """Read one short line, or None where it does not come in time."""
    assert child.stdout is not None
    descriptor, data, end = child.stdout.fileno(), b"", time.monotonic() + seconds
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        piece = os.read(descriptor, 4096) if ready else b""
        if not piece:
            return None
        data += piece
    return data.strip()


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    """Forbid what no scorer needs: a second wall, behind what a task lets through to a scorer that evaluates text."""
    writes = event == "open" and isinstance(args[2], int) and bool(args[2] & _WRITE)
    if writes or (event.startswith(_REFUSED) and event not in _READING):
        raise PermissionError(f"{event}: not while answers are scored")


def _serve() -> None:
    """Answer requests, each a scorer and what it is given, until the input is closed."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out, sys.stdout = sys.stdout, sys.stderr  # nothing but replies goes to the pipe
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse)
    made: dict[Hashable, Callable[..., float]] = {}
    sys.path += [place for place in pickle.load(sys.stdin.buffer) if place not in sys.path]
    while True:
        try:
            key, given = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if given is None:
            make, settings = key
            made[key] = make(*settings)
            print("ready", file=out, flush=True)
            continue
        try:
            score = float(made[key](*given))
        except Exception:  # scorers parse free text, each in its way: what they cannot read is a wrong answer
            score = 0.0
        print(score, file=out, flush=True)


if __name__ == "__main__":
    _serve()
