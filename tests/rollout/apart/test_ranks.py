"""Whole runs of two ranks and two engines: what they write is what one process writes, and either goes on with it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.run import steps, train, until
from tests.faults.victims import named
from tests.ranks import Processes, processes
from tests.test_ranks import STEADY, VARIANTS, assert_alike, ran
from tests.tiny import cli_code

pytestmark = pytest.mark.slow
FLEET = ["devices=apart", "devices.ranks=2", "devices.engines=2"]
MIXTURE = [
    "source=mixed", "source.parts.teacher={_target_: opd.sources.teacher.TeacherSource}",
    "source.shares={student: 0.5, teacher: 0.25, dataset: 0.25}", "objective=gkd",
]  # fmt: skip
RUNS = {
    "in turn, conversations": VARIANTS["turns"],
    "ahead, a mixture, with adapters": ["devices.ahead=1", "student.lora.rank=4", *MIXTURE],
}


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with processes(2, timeout=300) as started:
        yield started


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_and_two_engines_write_what_one_process_writes(
    name: str, two: Processes, config: Path, tmp_path: Path
) -> None:
    one, fleet = tmp_path / "one", tmp_path / "fleet"
    assert cli_code(["train", f"conf={config}", f"run={one}", "-q", "steps=3", *STEADY, *RUNS[name]]) == 0
    two(ran, str(config), str(fleet), ["steps=3", *STEADY, *FLEET, *RUNS[name]])
    assert_alike(fleet, one, 3)


def test_what_was_written_ahead_is_gone_on_with_by_another_number_of_ranks_and_engines(
    two: Processes, config: Path, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    own = ["steps=4", "devices.ahead=1", "checkpoint.keep=9", *STEADY]
    assert cli_code(["train", f"conf={config}", f"run={whole}", "-q", *own]) == 0
    two(ran, str(config), str(run), [*FLEET, *own])
    assert_alike(run, whole, 4)
    back_to(run, 2)
    assert cli_code(["train", "--resume", f"run={run}", "-q", "devices=one", "devices.ahead=1"]) == 0
    assert_alike(run, whole, 4)
    back_to(run, 3)
    two(ran, str(run / "config.yaml"), str(run), [*FLEET, "devices.engines=1", "devices.ahead=1"])
    assert_alike(run, whole, 4)


def back_to(run: Path, step: int) -> None:
    """Take a run's later checkpoints away."""
    for later in range(step + 1, 5):
        shutil.rmtree(run / f"checkpoints/step_{later:06d}")


def test_a_killed_engine_is_replaced_and_a_killed_first_rank_leaves_nothing(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = train(config, run, *FLEET, "devices.ahead=1", "devices.timeout=120")
    try:
        assert until(lambda: steps(run) >= 1, 300)
        engine = started.engine(0)
        os.kill(engine, signal.SIGKILL)
        assert until(lambda: steps(run) >= 4, 120)
        assert engine not in started.left
        os.kill(started.rank(0), signal.SIGKILL)
        assert list(named(started, run, "rank 0 of 2")) == []
    finally:
        started.clear()
