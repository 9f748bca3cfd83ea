"""Threads: as many as there are idle cores, one place to say otherwise."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from opd.devices import threads as module
from opd.devices.threads import cores, idle_cores, pick_threads, threads
from tests.tiny import cli_code

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")


class Clock:
    """Time that passes while something sleeps, and what is busy on four cores meanwhile."""

    def __init__(self, ours: float, others: dict[int, float]) -> None:
        self.now = self.spent = 0.0
        self.ours, self.others = ours, others
        self.busy = dict.fromkeys(range(4), 0.0)

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.spent

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.spent += self.ours * seconds
        self.busy[0] += self.ours * seconds
        for core, share in self.others.items():
            self.busy[core] += share * seconds


@pytest.mark.parametrize(
    ("ours", "others", "idle"),
    [
        (0.0, {}, 4),
        (1.0, {}, 4),
        (0.5, {1: 1.0, 3: 0.9}, 2),
        (0.0, {0: 0.3}, 4),
        (0.0, dict.fromkeys(range(4), 1.0), 1),
    ],
)
def test_cores_that_others_are_busy_on_are_not_counted(
    ours: float, others: dict[int, float], idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(ours, others)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_busy", lambda: dict(clock.busy))
    monkeypatch.setattr(module, "cores", lambda: 4)
    assert idle_cores() == idle


@needs_linux
def test_a_busy_program_beside_us_is_seen() -> None:
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])  # on our cores, as they are inherited
    try:
        time.sleep(0.3)
        assert idle_cores(0.5) <= max(1, cores() - 1)
    finally:
        program.kill()
        program.wait()


def test_a_number_that_is_given_wins_over_the_environment_and_both_over_what_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "idle_cores", lambda: 7)
    monkeypatch.setattr(module, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert pick_threads(None) == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (pick_threads(None), pick_threads(2)) == (3, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", " 2,1 ")
    assert pick_threads(None) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert pick_threads(None) == 8
    for nonsense in ("0", "-1", "many", ""):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert pick_threads(None) == 7
    assert (pick_threads(None, 3), pick_threads(None, 16)) == (2, 1)  # processes that share the machine
    assert pick_threads(64) == 8  # a run that was begun on a larger machine


def test_a_containers_limit_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(module, "QUOTA", quota)
    unlimited = cores()
    quota.write_text("150000 100000\n")
    assert cores() == 1
    quota.write_text("max 100000\n")
    assert cores() == unlimited


def test_threads_are_given_for_a_while() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_run_computes_with_the_threads_that_it_is_given(config: Path, tmp_path: Path) -> None:
    seen = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object) -> None:
        seen.append(torch.get_num_threads())
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        patch.setattr(module, "cores", lambda: 3)
        before = torch.get_num_threads()
        run = ["train", f"conf={config}", f"run={tmp_path / 'run'}", "-q", "steps=2", "threads=3", "eval.every=0"]
        assert cli_code(run) == 0
    assert (seen, torch.get_num_threads()) == ([3, 3], before)
