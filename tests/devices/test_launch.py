"""The launcher, with ranks that need no torch: how a launch ends, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from opd.devices.leftovers import leftovers

ROOT = Path(__file__).parents[2]
LAUNCHES = """
import fcntl, os, runpy, sys, termios
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("tests.devices.fake_rank", run_name="__main__")
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def until(holds: Callable[[], Any], seconds: float = 30) -> None:
    """Return as soon as something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


@dataclass
class Launched:
    """A launcher in a process group of its own, and its ranks."""

    folder: Path
    mark: str = field(default_factory=lambda: f"OPD_TEST={uuid.uuid4()}")

    def start(self, *works: str, terminal: int | None = None) -> Launched:
        """Start it, with a terminal for its output where one is given."""
        name, value = self.mark.split("=")
        self.works = works
        out = subprocess.PIPE if terminal is None else terminal
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHES, "launch", str(self.folder), "7", *works],
            stdin=terminal, stdout=out, stderr=out, text=True, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), name: value},
        )  # fmt: skip
        return self

    def ready(self) -> Launched:
        until(lambda: all((self.folder / f"ready-{rank}").exists() for rank in range(len(self.works))))
        return self

    def rank(self, rank: int) -> dict[str, Any]:
        """The environment of a rank, its `pid`, and the launch's `place`."""
        return json.loads((self.folder / f"ready-{rank}").read_text())

    def end(self) -> dict[str, Any]:
        """The report of the whole."""
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def gone(self) -> bool:
        return not leftovers(self.mark)


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    made = Launched(tmp_path)
    yield made
    left = leftovers(made.mark)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left, "processes of the launch are left"


@pytest.mark.parametrize(
    ("works", "kind", "says"),
    [
        (["done", "done", "done"], "done", ""),
        (["mistake:optim.lr=x", "mistake:optim.lr=x"], "mistake", "optim.lr=x"),
        (["lost", "failure:step 3: not finite"], "failure", "step 3: not finite"),
        (["lost", "bug:name"], "unforeseen", "internal error on rank 1, KeyError: 'name'; see it with --debug"),
        (["hang", "kill:SIGKILL"], "died", "rank 1 of 2 was killed by SIGKILL"),
        (["lost", "kill:SIGKILL"], "died", "rank 1 of 2 was killed by SIGKILL"),
        (["kill:SIGSEGV", "hang", "lost"], "died", "rank 0 of 3 was killed by SIGSEGV"),
        (["hang", "exit:3"], "died", "rank 1 of 2 ended with exit code 3, unexplained"),
        (["lost", "hang"], "died", "rank 1 of 2 did not answer for 7 s (devices.timeout)"),
        (["lost", "kill:SIGSTOP", "hang"], "died", "ranks 1, 2 of 3 did not answer for 7 s (devices.timeout)"),
    ],
    ids=lambda value: "+".join(value).replace(":", "-") if isinstance(value, list) else "",
)
def test_the_first_that_went_wrong_is_told_of(works: list[str], kind: str, says: str, launched: Launched) -> None:
    report = launched.start(*works).end()
    assert (report["kind"], report["message"], report["run"]) == (kind, says, "runs/fake")


def test_a_rank_that_ended_unexplained_leaves_its_last_words(launched: Launched) -> None:
    assert launched.start("hang", "exit:3").end()["trace"] == "rank 1: what it printed last"


def test_ranks_are_told_who_they_are_and_meet_on_the_loopback(launched: Launched) -> None:
    launched.start("done", "done").end()
    own = [launched.rank(rank) for rank in (0, 1)]
    assert [e["RANK"] + e["LOCAL_RANK"] + e["WORLD_SIZE"] + e["LOCAL_WORLD_SIZE"] for e in own] == ["0022", "1122"]
    assert own[0]["OPD_STORE"] == own[1]["OPD_STORE"] == f"file://{own[0]['place']}/store"
    assert own[0]["GLOO_SOCKET_IFNAME"] == "lo"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_launcher_alone_stops_all_ranks(number: signal.Signals, launched: Launched) -> None:
    launched.start("steps", "steps").ready().process.send_signal(number)
    report = launched.end()
    assert (report["kind"], report["signal"]) == ("interrupted", number)


def test_a_ctrl_c_that_reaches_all_counts_once(launched: Launched) -> None:
    os.killpg(launched.start("steps", "steps").ready().process.pid, signal.SIGINT)
    report = launched.end()
    assert (report["kind"], report["signal"], report["message"]) == (
        "interrupted", signal.SIGINT, "stopped after step 3, state saved",
    )  # fmt: skip


def test_there_is_no_limit_to_the_step_that_a_signal_ends(launched: Launched) -> None:
    launched.start("steps", "hang").ready().process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        launched.process.wait(3)
    launched.process.kill()
    until(launched.gone)
    launched.process.communicate()


@pytest.mark.parametrize("works", [["hang", "steps"], ["deaf", "hang"]], ids=str)
def test_a_second_signal_ends_all_at_once(works: list[str], launched: Launched) -> None:
    process = launched.start(*works).ready().process
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in err
    assert time.monotonic() - begun < 6
    assert launched.gone()


@pytest.mark.parametrize("works", [["hang", "deaf"], ["steps", "kill:SIGSTOP"], ["engine:hang", "done"]], ids=str)
def test_nothing_outlives_a_launcher_that_is_killed(works: list[str], launched: Launched) -> None:
    launched.start(*works).ready().process.kill()
    until(launched.gone, 10)
    until(lambda: not Path(launched.rank(0)["place"]).exists(), 5)
    launched.process.communicate()
    assert launched.gone()


def test_what_a_killed_rank_had_started_is_ended_too(launched: Launched) -> None:
    assert launched.start("hang", "engine:kill").end()["message"] == "rank 1 of 2 was killed by SIGKILL"
    assert launched.gone()


@pytest.mark.parametrize("launcher_dies", [False, True])
def test_a_terminal_that_a_killed_rank_drew_on_is_given_back(launcher_dies: bool, launched: Launched) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    launched.start("draw:hang" if launcher_dies else "draw:kill", "hang", terminal=theirs).ready()
    if launcher_dies:
        time.sleep(1)
        launched.process.kill()
        until(launched.gone, 10)
    launched.process.wait(30)
    shown = os.read(ours, 1 << 16)
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") > -1
    assert launcher_dies or termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
