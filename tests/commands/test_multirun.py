"""Sweeps: every combination is checked first, then run in its own process."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from opd.commands.train.multirun import own_folder, run_all, run_name, run_one
from opd.run.interrupt import Interrupted, StopSignal
from opd.types import UserError
from tests.report.made import save_run

TINY = """defaults: [base, _self_]
name: tiny
steps: 6
student: {model: s}
teacher: {model: t}
sampling: {max_tokens: 12}
"""
SWEEP = ["optim.lr=1e-3,1e-4", "rollout=hf,vllm", "steps=7"]


class Launches:
    """Stands in for processes; the run of number `bad` fails, and at number `stop_at` a signal comes."""

    def __init__(self, bad: int = 0, stop_at: int = 0) -> None:
        self.calls: list[list[str]] = []
        self.bad, self.stop_at = bad, stop_at

    def __call__(self, arguments: Sequence[str], stop: StopSignal) -> int:
        self.calls.append(list(arguments))
        if len(self.calls) == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return int(len(self.calls) == self.bad)


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return {"conf": str(tmp_path / "tiny.yaml")}


def test_every_combination_is_run_under_a_name_of_its_own(named: dict[str, str]) -> None:
    launches = Launches()
    assert run_all(named, SWEEP, ["--quiet"], launches) == 0
    assert len(launches.calls) == 4
    assert all(c[:2] == ["train", f"conf={named['conf']}"] and c[-1] == "--quiet" for c in launches.calls)
    assert launches.calls[1][2:5] == ["optim.lr=0.001", "rollout=vllm", "steps=7"]
    names = [c[5] for c in launches.calls]
    assert names[1] == "name=tiny-2-lr-0.001-rollout-vllm"
    assert len(set(names)) == 4
    assert not Path("runs").exists(), "of runs that have left nothing"


def test_one_that_fails_does_not_stop_the_others(named: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    launches = Launches(bad=2)
    assert run_all(named, SWEEP, [], launches) == 1
    assert len(launches.calls) == 4
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "3 of 4 runs done; failed: tiny-2-lr-0.001-rollout-vllm"


def test_the_runs_of_a_sweep_and_of_no_other_are_set_side_by_side_in_the_end(
    named: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def launch(arguments: Sequence[str], stop: StopSignal) -> int:
        name, run = (next(a for a in arguments if a.startswith(key)).removeprefix(key) for key in ("name=", "run="))
        assert Path(run).name.startswith(name)
        number = int(name.split("-")[1])
        save_run(tmp_path / f"my runs/{name}-29991231-000000", [{"step": 9, "kl/exact": 9}])  # of another one meanwhile
        if number != 3:  # which fails before there is a run
            save_run(Path(run), [{"step": 0}, {"step": 1, "kl/exact": number}])
        return int(number == 3)

    assert run_all(named, [*SWEEP, f"runs={tmp_path / 'my runs'}"], [], launch) == 1
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("run "))
    assert lines[head].split()[:3] == ["run", "optim.lr", "rollout"]
    rows = [line.split() for line in lines[head + 2 : -2]]
    assert [row[:2] for row in rows] == [["1", "0.001"], ["2", "0.001"], ["3", "0.0001"], ["4", "0.0001"]]
    assert [row[2] for row in rows] == ["hf", "vllm", "hf", "vllm"]
    assert rows[2][3:] == ["not", "begun"]
    assert rows[1][-3:] == ["2.000", "→", "2.000"]
    command = shlex.split(lines[-2])
    assert command[:3] == ["compare:", "opd", "report"]
    assert len(command) == 6
    assert all(Path(run, "config.yaml").exists() and "2999" not in run for run in command[3:])


def test_sweeps_of_one_name_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    with ExitStack() as stack:
        paths = [stack.enter_context(own_folder(str(tmp_path), "tiny-1")) for _ in range(5)]
        assert len(set(paths)) == 5
        assert all(path.is_dir() for path in paths)
        (paths[0] / "config.yaml").touch()
    assert list(tmp_path.iterdir()) == [paths[0]]


def test_a_mistake_in_one_combination_stops_all_before_the_first(named: dict[str, str]) -> None:
    launches = Launches()
    with pytest.raises(UserError, match=r"optim\.lr=-1"):
        run_all(named, ["optim.lr=1e-3,-1"], [], launches)
    assert launches.calls == []


def test_a_signal_ends_the_sweep_after_the_run_under_way(named: dict[str, str]) -> None:
    launches = Launches(stop_at=2)
    with pytest.raises(Interrupted, match="run 2 of 4; 2 were not started") as caught:
        run_all(named, SWEEP, [], launches)
    assert caught.value.signal == signal.SIGINT
    assert len(launches.calls) == 2


def test_names_are_fit_for_folders() -> None:
    name = run_name("tiny", 3, ["a=1"], ["student.model=org/My Model", "a=1", "data.system='x, y'"])
    assert name == "tiny-3-model-org_My_Model-system-_x_y_"
    swept = [f"student.model=/{'a' * 60}", f"teacher.model=/{'b' * 60}", f"data.path=/{'c' * 60}"]
    long = [run_name(base, number, [], swept) for base in ("tiny", "x" * 100) for number in (1, 10_000)]
    assert len(set(long)) == 4
    assert max(map(len, long)) <= 100


def test_a_run_hands_on_the_signal_and_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is a hand-written `opd` that waits for SIGTERM, then takes a moment to save."""
    package = tmp_path / "opd"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import signal, sys, time, pathlib\n"
        "def handle(*_):\n    time.sleep(0.5); pathlib.Path(sys.argv[1]).write_text('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, handle)\npathlib.Path(sys.argv[1]).write_text('ready')\ntime.sleep(30)\n"
    )
    script = (
        "import sys; from opd.commands.train.multirun import run_one; from opd.run.interrupt import StopSignal\n"
        "from opd import children; from pathlib import Path; children.ROOT = Path(sys.argv[1])\n"
        "with StopSignal() as stop: sys.exit(run_one([sys.argv[2]], stop))\n"
    )
    note = tmp_path / "note"
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(note)])
    end = time.monotonic() + 30
    while time.monotonic() < end and not (note.exists() and note.read_text() == "ready"):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert note.read_text() == "saved"


def test_a_child_that_ends_by_itself_gives_its_code() -> None:
    with StopSignal() as stop:
        assert run_one(["no-such-command"], stop) == 2
