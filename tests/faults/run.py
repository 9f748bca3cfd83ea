"""A run of seconds on several processes, which can be killed one by one."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file

from opd.devices.leftovers import leftovers
from opd.run.checkpoint import checkpoints
from opd.run.metrics import read_metrics
from tests.tiny import cli_code

ROOT = Path(__file__).parents[2]
STEPS = 8


def until(holds: Callable[[], bool], seconds: float, every: float = 0.02) -> bool:
    """Whether something came to hold within some seconds; looks again and again."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(every)
    return held


@dataclass
class Started:
    """`opd train` at work, or ended."""

    process: subprocess.Popen[str]
    mark: str

    @property
    def left(self) -> list[int]:
        """Its processes, all that it has started among them."""
        return leftovers(self.mark)

    def rank(self, rank: int) -> int:
        """The process of a rank; 0: not there yet, or no more."""
        for process in self.left:
            with suppress(OSError):
                said = Path(f"/proc/{process}/cmdline").read_bytes(), Path(f"/proc/{process}/environ").read_bytes()
                if b"opd.rank" in said[0].split(b"\0") and f"RANK={rank}".encode() in said[1].split(b"\0"):
                    return process
        return 0

    def engine(self, number: int) -> int:
        """The process of an engine that is apart, in the order of their start; 0: not there yet, or no more."""
        found = []
        for process in sorted(self.left):
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes():
                    found.append(process)
        return found[number] if number < len(found) else 0

    def end(self, seconds: float) -> tuple[int, list[str]]:
        """Its exit code and what it wrote to stderr."""
        _, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, err.splitlines()

    def clear(self) -> None:
        """End whatever is left."""
        for process in self.left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def opd(*arguments: str) -> Started:
    """Start `opd`, quiet, in a session of its own."""
    return talking(*arguments, "-q", out=subprocess.DEVNULL, plain={"NO_COLOR": "1"})


def talking(*arguments: str, out: int, plain: Mapping[str, str] = MappingProxyType({})) -> Started:
    """Start `opd` in a session of its own, which prints to a descriptor."""
    name, value = "OPD_TEST", str(uuid.uuid4())
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPD_PARTS": "tests", "TERM": "xterm-256color", name: value}
    process = subprocess.Popen(
        [sys.executable, "-m", "opd", *arguments], stdout=out, stderr=subprocess.PIPE, text=True,
        env=os.environ | own | plain, start_new_session=True,
    )  # fmt: skip
    return Started(process, f"{name}={value}")


class Copy:
    """A copy of this process, in a session of its own, that carries `opd` out: what is imported here is so there."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start it; a pipe holds what it writes to stderr."""
        importlib.import_module("opd.loop")  # here, and not in every copy
        self._err, theirs = os.pipe()
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._carry_out(arguments, theirs)
        os.close(theirs)

    def _carry_out(self, arguments: Sequence[str], err: int) -> None:
        code = 99
        try:
            os.setsid()
            os.environ["OPD_PARTS"] = "tests"
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(err, 2)
            code = cli_code([*arguments])
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, None while it is at work."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what it has written."""
        if not until(lambda: self.poll() is not None, timeout):
            raise TimeoutError(f"process {self.pid} has not ended within {timeout:g} s")
        with open(self._err, "rb") as err:
            return "", err.read().decode("utf-8", "replace")


@dataclass
class Forked(Started):
    """`opd` in a copy of this process: there is no start of Python, and no import."""

    process: Any

    @property
    def left(self) -> list[int]:
        """Its session's processes."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state != "Z":
                    found.append(int(stat.parent.name))
        return found


def forked(*arguments: str) -> Started:
    """Start `opd`, quiet, in a copy of this process."""
    return Forked(Copy([*arguments, "-q"]), "")


Start = Callable[..., Started]


def train(config: Path, run: Path, *overrides: str, seconds: float = 0.3, start: Start = opd) -> Started:
    """Train for some steps, each of which takes at least some seconds."""
    slow = ("teacher._target_=tests.fakes.SlowTeacher", f"teacher.seconds={seconds}")
    own = (f"steps={STEPS}", "checkpoint.every=2", "threads=1")
    return start("train", f"conf={config}", f"run={run}", *own, *slow, *overrides)


def steps(run: Path) -> int:
    """Steps that are behind it; -1: it has not begun."""
    file = run / "metrics.jsonl"
    return int(max((row["step"] for row in read_metrics(file)), default=-1)) if file.exists() else -1


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The last checkpoint's, or those of its adapter."""
    (file,) = checkpoints(run / "checkpoints")[-1].model.glob("*.safetensors")
    return load_file(file)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether all are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
