"""`opd train` in several processes, as people meet it: one panel, one folder, one line where something is wrong."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import opd
from opd.commands.jobs import read
from opd.commands.train.job import Order, Training
from opd.commands.train.plan import Plan, agreed, fresh, heard
from opd.devices.report import Report
from opd.run.checkpoint import checkpoints
from opd.run.interrupt import Interrupted
from opd.run.metrics import read_metrics
from opd.types import RunError, UserError
from tests.faults.run import Started, steps, train, until

RANKS = ("devices=ranks", "devices.ranks=2")


def test_a_plan_is_the_same_where_it_is_heard(config: Path, tmp_path: Path) -> None:
    plan = fresh(str(config), ["optim.lr=1e-5"], tmp_path / "run")
    again = heard(plan.told())
    assert (again.composed, again.run, again.free) == (plan.composed, plan.run, plan.free)
    assert again.composed.yaml == plan.composed.yaml


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", ""),
        ("devices.ahead=2", "one ahead=2"),
        ("devices=ranks devices.ranks=4 devices.shard=2", "ranks ranks=4 shard=2"),
        ("devices=apart devices.engines=3 devices.ahead=1", "apart ranks=1 engines=3 ahead=1"),
    ],
)
def test_a_plan_says_where_it_computes_where_that_is_not_one_process_alone(
    typed: str, said: str, config: Path, tmp_path: Path
) -> None:
    lines = fresh(str(config), typed.split(), tmp_path / "run").looked_at().splitlines()
    assert [line for line in lines if line.startswith("  devices")] == ([f"  devices    {said}"] if said else [])


class Pair:
    """Two ranks, of which this is the second; what the first one has sent is known."""

    rank, size, mesh = 1, 2, None

    def __init__(self, sent: list[object]) -> None:
        self.sent = sent

    def gather(self, value: object) -> list[object]:
        return [self.sent, value]


def test_the_first_ranks_plan_is_everyones(config: Path, tmp_path: Path) -> None:
    plan = fresh(str(config), [], tmp_path / "run")

    def own() -> Plan:
        raise AssertionError("only the first one plans")

    assert agreed(Pair([plan.told()]), own) == plan


def test_an_order_arrives_as_it_was_given(config: Path) -> None:
    order = Order({"conf": str(config)}, ("devices=ranks", "devices.ranks=3"), quiet=True)
    assert Training(Order(**read(Training(order).text)[1])).devices == Training(order).devices
    composed = opd.compose(config, "optim.lr=1e-5", *RANKS)
    sent = Training(Order(**read(Training(Order({}, composed.overrides, yaml=composed.yaml)).text)[1]))
    assert sent.plan().composed == fresh(composed, ()).composed


@pytest.mark.parametrize(
    ("report", "error", "says"),
    [
        (Report("mistake", "optim.lr=x"), UserError, "optim.lr=x"),
        (Report("failure", "not finite"), RunError, "not finite"),
        (Report("unforeseen", "internal error"), RunError, "internal error"),
        (Report("interrupted", "stopped", 15), Interrupted, "stopped"),
        (Report("died", "rank 1 of 2 was killed"), RunError, "rank 1 of 2 was killed; there is no checkpoint"),
        (Report("lost", "rank 1 of 2 lost another one", run="{run}"), RunError, "opd train --resume run="),
    ],
)
def test_what_ranks_report_is_raised(report: Report, error: type, says: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints/step_000002").mkdir(parents=True)
    (tmp_path / "checkpoints/step_000002/state.json").touch()
    report = Report(report.kind, report.message, report.signal, report.run.format(run=tmp_path))
    with pytest.raises(error, match=says):
        Training(Order({})).ended(report)


def test_a_console_of_the_callers_is_refused_where_ranks_cannot_use_it(config: Path) -> None:
    from opd.console.silent import SilentConsole

    with pytest.raises(UserError, match="console: "):
        opd.train(config, *RANKS, console=SilentConsole())


@pytest.fixture
def started(config: Path, tmp_path: Path) -> Iterator[Started]:
    """A run on two ranks, a second a step."""
    made = train(config, tmp_path / "run", *RANKS, "steps=100", "checkpoint.every=90", seconds=1)
    yield made
    made.process.kill()
    made.process.communicate()
    until(lambda: not made.left, 10)
    made.clear()


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves_the_same_step_everywhere(started: Started, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert until(lambda: steps(run) >= 1, 200)
    started.process.send_signal(signal.SIGTERM)
    code, err = started.end(60)
    last = checkpoints(run / "checkpoints")[-1].step
    said = f"opd: stopped after step {last}, state saved; go on with:  opd train --resume run={run}"
    assert (code, err, started.left) == (143, [" ".join(said.split())], [])
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == last


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named_in_one_line(started: Started, tmp_path: Path) -> None:
    assert until(lambda: steps(tmp_path / "run") >= 1, 200)
    os.kill(started.rank(1), signal.SIGKILL)
    said = "opd: rank 1 of 2 was killed by SIGKILL; there is no checkpoint yet; the run can begin anew:"
    way = f"opd train --resume run={tmp_path / 'run'}"
    assert (*started.end(60), started.left) == (1, [f"{said} {way}"], [])


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_gives_it_back_as_it_was(config: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    slow = ("teacher._target_=tests.fakes.SlowTeacher", "teacher.seconds=0.5", "steps=100")
    takes_it = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    takes_it += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = ["-m", "opd", "train", f"conf={config}", f"run={tmp_path / 'run'}", *RANKS, *slow]
    process = subprocess.Popen(
        [sys.executable, "-c", takes_it, *command],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=os.environ | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    shown, end, pressed = b"", time.monotonic() + 200, False
    while process.poll() is None and time.monotonic() < end:
        if select.select([ours], [], [], 0.1)[0]:
            shown += os.read(ours, 1 << 16)
        if not pressed and steps(tmp_path / "run") >= 1:
            pressed = True
            os.write(ours, b"\x03")
    shown += os.read(ours, 1 << 16) if select.select([ours], [], [], 0.1)[0] else b""
    assert process.wait(10) == 130
    assert b"stopped after step" in shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") > 0, "there was a panel, and the cursor is shown again"
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
