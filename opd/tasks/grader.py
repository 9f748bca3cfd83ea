"""Symbolic comparison of mathematical answers by math-verify, in a process of its own.

math-verify stops endless simplifications with an alarm signal, which works in a main thread only, and not while the
interpreter is inside one long operation (`9**9**9`). A child process can be killed at any time and from any thread.
It ends by itself when this process does, however that happens: its input is then closed.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time

from opd.types import RunError, UserError

START_SECONDS = 120.0  # sympy's import, on a slow disk
MEMORY = 4 << 30  # bytes of address space, against expressions that grow without end


class Grader:
    """Compares answers, one at a time; any thread may ask."""

    def __init__(self, seconds: float = 5.0) -> None:
        """Set the time for one comparison; the child starts at the first one."""
        self.seconds = seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def equal(self, gold: str, given: str) -> bool:
        """Say whether `given`, text or LaTeX, means the LaTeX expression `gold`; False where that takes too long."""
        with self._lock:
            child = self._child if self._child is not None and self._child.poll() is None else self._start()
            assert child.stdin is not None
            try:
                child.stdin.write(json.dumps([gold, given]).encode() + b"\n")
                child.stdin.flush()
            except BrokenPipeError:
                self._stop()
                return False
            reply = _line(child, self.seconds)
            if reply is None:
                self._stop()
            return reply == b"1"

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        # Its own session: Ctrl-C is for this process, which may still have answers to grade before it stops.
        command = [sys.executable, "-m", "opd.tasks.grader"]
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True)
        self._child = child
        if _line(child, START_SECONDS) != b"ready":
            self._stop()
            raise RunError(f"the grader of answers did not start: run {' '.join(command)} to see why")
        return child

    def _stop(self) -> None:
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


def require() -> None:
    """Raise UserError where math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise UserError('this task checks answers with math-verify, which is not installed: pip install "opd[tasks]"')


def last_boxed(text: str) -> str | None:
    r"""Give what is inside the last `\boxed{...}`, braces balanced; None where there is none or it is cut off."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i]
    return None


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


def _serve() -> None:
    """Answer requests until the input is closed."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import math_verify

    out, sys.stdout = sys.stdout, sys.stderr  # nothing but replies goes to the pipe
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        gold, given = json.loads(line)
        # Time is kept by the parent, so math-verify's own alarms stay off.
        truth = math_verify.parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
        guess = math_verify.parse(given, parsing_timeout=None)
        print(int(math_verify.verify(truth, guess, timeout_seconds=None)), file=out, flush=True)


if __name__ == "__main__":
    _serve()
