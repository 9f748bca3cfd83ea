"""Whoever dies, no process is left, and an engine's work is done by another."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from opd.rollout.apart import process
from opd.rollout.apart.child import ENGINE
from opd.rollout.apart.fleet import Engines, Fleet
from opd.rollout.apart.process import EngineProcess
from opd.rollout.hf import Hf
from opd.types import Example, Pretrained, Prompt, RunError
from opd.writing import Engine
from tests.rollout.apart.engines import Moody
from tests.rollout.apart.moods import FATAL, ONCE, SLOW, Plain
from tests.rollout.apart.test_fleet import PROMPTS, SAMPLING, same
from tests.rollout.test_engines import MAX_LEN, TOLERANCE, gap, make_model

pytestmark = pytest.mark.slow
PARENT = """
import sys, time
from opd.rollout.apart.fleet import Engines
from opd.types import Example, Prompt, Sampling
from tests.rollout.apart.moods import SLOW, Plain
if __name__ == "__main__":
    fleet = Engines(Plain(folder=sys.argv[1]), 1).start("no model", max_len=64, seed=0)
    print(*fleet.pids, flush=True)
    if sys.argv[2] == "raise":
        raise KeyError("somewhere")
    fleet.sample([Prompt(Example("", ()), (SLOW if sys.argv[2] == "busy" else 5,))], Sampling(max_tokens=2))
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model("tied", 0).save_pretrained(folder)
    return folder


class Told(list[str]):
    """Remembers what it is told."""

    __call__ = list.append


@pytest.fixture
def start(model: Path) -> Iterator[Callable[..., Fleet]]:
    """Starts a fleet."""
    started: list[Fleet] = []

    def start(engine: Engine, count: int = 1) -> Fleet:
        started.append(Engines(engine, count, timeout=300).start(str(model), max_len=MAX_LEN, seed=0))
        return started[-1]

    yield start
    for fleet in started:
        fleet.close()
        assert not any(map(alive, fleet.pids))


def alive(pid: int) -> bool:
    """Whether there is such a process that is not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int, seconds: float = 10) -> bool:
    """Whether a process ends in time."""
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


@pytest.mark.parametrize(("token", "how"), [(FATAL, "ended"), (ONCE, "failed")])
def test_an_engine_that_is_killed_or_fails_in_its_work_is_replaced_and_nothing_changes(
    token: int, how: str, start: Callable[..., Fleet], model: Path, tmp_path: Path
) -> None:
    here = Hf(dtype="float32", device="cpu").start(str(model), max_len=MAX_LEN, seed=0)
    (moods := tmp_path / "moods").mkdir()
    fleet = start(Moody(dtype="float32", device="cpu", folder=str(moods)), 2)
    newest = make_model("tied", 3)
    for engine in (here, fleet):
        engine.load_weights(newest.state_dict().items(), 5)
    prompts = [*PROMPTS, Prompt(Example("fatal", ()), (token,))]
    told = fleet._watch._told = Told()
    before = fleet.pids
    drawn = fleet.sample(prompts, SAMPLING)
    assert same(drawn, here.sample(prompts, SAMPLING))
    assert {r.version for r in drawn} == {5}
    assert gap(newest, [r for r in drawn if r.tokens]) < TOLERANCE
    after = fleet.pids
    assert before[0] == after[0]  # it was asked for nothing twice
    assert before[1] != after[1]
    assert not alive(before[1])
    assert re.fullmatch(f"rollout: engine 2 of 2 {how} while it was asked for sample: .*; it is started again.*", *told)
    os.kill(after[0], signal.SIGKILL)  # one that has nothing to do
    assert same(fleet.sample(prompts, SAMPLING), drawn)


def test_a_request_that_kills_two_engines_in_a_row_ends_the_run(start: Callable[..., Fleet], tmp_path: Path) -> None:
    fleet = start(Plain(str(tmp_path), times=2))
    with pytest.raises(RunError, match=r"engine 1 of 1 ended while it was asked for sample: it was killed \(SIGKILL\).*"
                                       "so did the one before it"):  # fmt: skip
        fleet.sample([Prompt(Example("", ()), (FATAL,))], SAMPLING)


def test_an_engine_that_does_not_answer_is_taken_for_dead(start: Callable[..., Fleet], tmp_path: Path) -> None:
    fleet = start(Plain(str(tmp_path)))
    before = fleet.pids
    watch = fleet._watch
    watch._timeout = 1.0  # of the call; starting takes longer
    replace_ = watch._replace

    def patient(number: int, what: str) -> None:
        assert "no answer in 1 s (devices.timeout)" in what
        watch._timeout = 300.0
        replace_(number, what)

    watch._replace = patient
    assert len(fleet.sample([Prompt(Example("", ()), (SLOW,))], SAMPLING)) == 3
    assert not alive(before[0])


def test_closing_ends_a_call_in_another_thread(start: Callable[..., Fleet], tmp_path: Path) -> None:
    fleet = start(Plain(str(tmp_path)))
    pids, caught = fleet.pids, []

    def ask() -> None:
        try:
            fleet.sample([Prompt(Example("", ()), (SLOW,))], SAMPLING)
        except RunError as error:
            caught.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(1.0)
    fleet.close()
    thread.join(10)
    assert caught
    assert "it was closed" in caught[0]
    assert ends(pids[0], 1)
    with pytest.raises(RunError, match="it was closed"):
        fleet.sample(PROMPTS, replace(SAMPLING, n=1))


@pytest.mark.parametrize("how", ["idle", "busy", "raise", "group"])
def test_no_engine_outlives_its_parent(how: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    (tmp_path / "moods").mkdir()
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "moods"), "idle" if how == "group" else how],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}, start_new_session=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if how == "raise":
            assert parent.wait(20) == 1
        elif how == "group":
            os.killpg(parent.pid, signal.SIGINT)  # Ctrl-C: the parent decides
            parent.wait(20)
        else:
            time.sleep(1.0)
            assert alive(pid)
            parent.kill()
        assert ends(pid)
    left = subprocess.run(["pgrep", "-s", str(parent.pid)], capture_output=True, text=True).stdout.split()
    assert not [p for p in left if not ends(int(p), 3)]


def test_an_engine_whose_start_is_interrupted_does_not_run_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[SpawnProcess] = []

    def start(self: SpawnProcess) -> None:
        begin(self)
        begun.append(self)
        raise KeyboardInterrupt

    begin = SpawnProcess.start
    monkeypatch.setattr(SpawnProcess, "start", start)
    with pytest.raises(KeyboardInterrupt) as caught:
        Engines(Hf(dtype="float32", device="cpu"), 1, timeout=300).start(str(model), max_len=MAX_LEN, seed=0)
    assert caught.tb  # which holds its end of the pipe
    assert [alive(one.pid or 0) for one in begun] == [False]


def test_no_two_engines_are_known_by_one_name_be_it_in_containers_whose_processes_have_the_same_numbers(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def start(self: SpawnProcess) -> None:
        names.append(os.environ[ENGINE])
        raise KeyboardInterrupt

    monkeypatch.setattr(SpawnProcess, "start", start)
    for _ in range(2):
        monkeypatch.setattr(process, "_numbers", count(), raising=False)
        with pytest.raises(KeyboardInterrupt):
            EngineProcess(Hf(), Pretrained(str(model)), max_len=MAX_LEN, seed=0)
    assert len(set(names)) == 2
