"""Ranks that Ray places: on two nodes, both on this machine, a run is that of `devices=ranks`, and ends as it does."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from opd.run.checkpoint import checkpoints
from opd.run.metrics import read_metrics
from tests.faults.run import ROOT, Started, opd, same, steps, train, until, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
    pytest.mark.skipif(find_spec("ray") is None, reason="opd[ray] is not installed"),
]
GPUS = ("98", "99")
"""What each has by its own account; no machine has so many."""
STARTING = 240.0
"""Seconds that Ray, torch and a first step may take on a busy machine."""


class Nodes:
    """Two of them, with room for one rank each, or one and its engine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.each = {"num_cpus": 2, "num_gpus": len(GPUS), "object_store_memory": 80 << 20, "include_dashboard": False}
        self.cluster = Cluster(shutdown_at_exit=True)
        self.nodes: list[Any] = []

    def start(self) -> None:
        """Begin as many as are missing; tried again, as Ray gives its own processes too little time to start."""
        for left in range(5, -1, -1):
            if len(self.nodes) == 2:
                return
            try:
                with pytest.MonkeyPatch.context() as here:
                    here.setenv("CUDA_VISIBLE_DEVICES", ",".join(GPUS))
                    self.nodes.append(self.cluster.add_node(**self.each))
            except Exception:  # of many kinds, where they were too slow for each other
                if not left:
                    raise

    def lose(self) -> None:
        """Take the second one away, as its power would."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """A running cluster that asks for a token."""
    import ray._raylet

    from opd.devices.cluster import PATIENT, QUIET, read_again, variables

    ray._raylet.get_authentication_mode()  # read before it is set, as where vLLM was imported first
    with variables(QUIET | PATIENT | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
        read_again()
        made = Nodes()
        try:
            made.start()
            yield made
        finally:
            made.cluster.shutdown()


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """Two that are there."""
    cluster.start()
    return cluster


RANKS = ("devices=ranks", "devices.ranks=2", "devices.timeout=60")
RAY = ("devices=ray", "devices.ranks=2", "devices.cpus=2", "devices.timeout=60")


def placed(nodes: Nodes, config: Path, run: Path, *overrides: str, seconds: float = 1) -> Started:
    """A run on two nodes."""
    return train(config, run, *RAY, f"devices.address={nodes.cluster.address}", *overrides, seconds=seconds)


def place_of(rank: int) -> str:
    """The order of a rank's process, in its launch's folder."""
    return Path(f"/proc/{rank}/cmdline").read_bytes().split(b"\0")[-2].decode()


def learned(run: Path) -> list[dict[str, float]]:
    """Metrics of what was written and learned, by step."""
    rows = read_metrics(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k.startswith(("kl/", "optim/", "rollout/"))} for row in rows]


def sees(process: int) -> str:
    """The GPUs that a process was started with."""
    variables = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in variables if line)["CUDA_VISIBLE_DEVICES"]


def test_two_nodes_write_what_two_ranks_write(nodes: Nodes, config: Path, tmp_path: Path) -> None:
    ranks = train(config, tmp_path / "ranks", *RANKS, seconds=0)
    assert ranks.end(STARTING) == (0, [])
    ray = placed(nodes, config, tmp_path / "ray", seconds=0)
    assert ray.end(STARTING) == (0, [])
    assert same(weights(tmp_path / "ray"), weights(tmp_path / "ranks"))
    assert learned(tmp_path / "ray") == learned(tmp_path / "ranks")


BESIDE = ("devices.ranks=1", "devices.engines=1", "devices.ahead=1")


def test_an_engine_beside_a_rank_writes_what_it_writes_elsewhere_and_ends_with_it(
    nodes: Nodes, config: Path, tmp_path: Path
) -> None:
    apart = train(config, tmp_path / "apart", "devices=apart", *BESIDE, seconds=0)
    assert apart.end(STARTING) == (0, [])
    ray = placed(nodes, config, tmp_path / "ray", *BESIDE, "devices.cpus=1", seconds=0)
    assert until(lambda: ray.engine(0) > 0, STARTING)
    assert sorted(sees(process) for process in (ray.rank(0), ray.engine(0))) == list(GPUS)
    assert ray.end(STARTING) == (0, [])
    assert until(lambda: not ray.left, 10)
    assert learned(tmp_path / "ray") == learned(tmp_path / "apart")
    assert same(weights(tmp_path / "ray"), weights(tmp_path / "apart"))


def test_an_engine_that_is_killed_as_it_writes_is_replaced_and_the_run_is_the_same(
    nodes: Nodes, config: Path, tmp_path: Path
) -> None:
    whole = train(config, tmp_path / "whole", "devices=apart", *BESIDE, seconds=0)
    assert whole.end(STARTING) == (0, [])
    run = tmp_path / "run"
    slow = "rollout._target_=tests.rollout.apart.engines.Slow"
    ray = placed(nodes, config, run, *BESIDE, "devices.cpus=1", "devices.timeout=120", slow, seconds=0)
    assert until(lambda: steps(run) >= 3, STARTING)
    os.kill(killed := ray.engine(0), signal.SIGKILL)
    code, (line,) = ray.end(STARTING)
    assert code == 0
    assert "rollout: engine 1 of 1 ended while it was asked for " in line
    assert killed not in ray.left
    assert learned(run) == learned(tmp_path / "whole")
    assert same(weights(run), weights(tmp_path / "whole"))


def test_a_node_that_is_lost_is_named_and_the_run_goes_on_elsewhere(nodes: Nodes, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = placed(nodes, config, run)
    assert until(lambda: steps(run) >= 3, STARTING)
    nodes.lose()
    code, (line,) = started.end(60)
    assert code == 1
    assert "opd: rank 1 of 2 on " in line
    assert "was lost with its node" in line
    assert f"opd train --resume run={run}" in line
    assert until(lambda: started.rank(0) == started.rank(1) == 0, 10)
    again = opd("train", "--resume", f"run={run}", "devices=ranks", "devices.ranks=2", "teacher.seconds=0")
    assert again.end(STARTING) == (0, [])


def test_an_actor_that_is_killed_ends_the_run_and_its_rank(nodes: Nodes, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = placed(nodes, config, run)
    assert until(lambda: steps(run) >= 3, STARTING)
    rank = started.rank(1)
    place = place_of(rank)
    os.kill(int(Path(f"/proc/{rank}/stat").read_text().split()[3]), signal.SIGKILL)
    code, (line,) = started.end(60)
    assert code == 1
    assert "opd: rank 1 of 2 on " in line
    assert "lost the actor that held it; the run can go on from its last checkpoint" in line
    assert until(lambda: started.rank(0) == started.rank(1) == 0 and not Path(place).parent.exists(), 10)
    again = opd("train", "--resume", f"run={run}", "teacher.seconds=0")
    assert again.end(STARTING) == (0, [])
    assert checkpoints(run / "checkpoints")[-1].step == 8


def test_a_rank_that_is_killed_is_named_with_its_node(nodes: Nodes, config: Path, tmp_path: Path) -> None:
    started = placed(nodes, config, tmp_path / "run", "checkpoint.every=90")
    assert until(lambda: steps(tmp_path / "run") >= 1, STARTING)
    os.kill(started.rank(0), signal.SIGKILL)
    code, (line,) = started.end(60)
    assert code == 1
    assert "opd: rank 0 of 2 on " in line
    assert " was killed by SIGKILL; there is no checkpoint" in line
    assert until(lambda: started.rank(0) == started.rank(1) == 0, 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_the_same_step_everywhere_and_a_cluster_begun_for_the_run_ends_with_it(
    number: signal.Signals, config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    started = train(config, run, *RAY, "steps=100", "checkpoint.every=90", seconds=1)
    assert until(lambda: steps(run) >= 1, STARTING)
    if number == signal.SIGTERM:
        started.process.send_signal(number)
    else:  # as a terminal does
        os.killpg(started.process.pid, number)
    code, err = started.end(60)
    last = checkpoints(run / "checkpoints")[-1].step
    said = f"opd: stopped after step {last}, state saved; go on with:  opd train --resume run={run}"
    assert (code, err) == (128 + number, [" ".join(said.split())])
    assert until(lambda: not started.left, 10)


def test_nothing_outlives_a_launcher_that_is_killed(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = train(config, run, *RAY, "steps=100", "checkpoint.every=90", seconds=1)
    assert until(lambda: steps(run) >= 1, STARTING)
    place = place_of(started.rank(1))
    started.process.kill()
    held = until(lambda: not started.left and not Path(place).parent.exists(), 30)
    started.clear()
    started.process.communicate()
    assert held


def test_the_first_ranks_lines_are_the_launchers(nodes: Nodes, config: Path, tmp_path: Path) -> None:
    command = ["-m", "opd", "train", f"conf={config}", f"run={tmp_path / 'run'}", "steps=2", "devices=ray"]
    done = subprocess.run(
        [sys.executable, *command, *RAY[1:], f"devices.address={nodes.cluster.address}"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=STARTING, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("step=")] == ["step=0/2", "step=1/2", "step=2/2"]
    assert lines[-1].startswith(f"done: {tmp_path / 'run'}")
