"""The one who starts a rank on a node, with ranks that need no torch; and settings of `devices=ray`, without Ray."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from opd.config.compose import load
from opd.devices import cluster
from opd.devices.gpus import GPUS
from opd.devices.host import PORTS, Asked, Host, Seen, interface
from opd.devices.leftovers import leftovers
from opd.devices.ray import Ray
from opd.extras import install
from opd.rollout.apart.fleet import card
from opd.run.directory import RunFolder, refuse_separate
from opd.types import UserError
from tests.devices.fake_rank import Fake

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def asked(folder: Path, work: str, rank: int = 0) -> Asked:
    """What starts a fake rank, as if there were another one."""
    works = ["done", "done"]
    works[rank] = work
    job = Fake(str(folder), works)
    told = {"OPD_STORE": "tcp://127.0.0.1:1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return Asked(job.command, job.text, rank, 2, " on node-7", str(folder), told, "", {"PYTHONPATH": str(ROOT)})


def seen_when(host: Host, holds: Callable[[Seen], object], order: str = "") -> Seen:
    """What it tells as soon as something holds of that."""
    last = time.monotonic() + 30
    while not holds(seen := host.look((0, 0), order)):
        assert time.monotonic() < last, seen
    return seen


@pytest.fixture
def host() -> Host:
    """One whose process is this one."""
    return Host()


@pytest.fixture(autouse=True)
def back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host goes where the launcher stands."""
    monkeypatch.chdir(os.getcwd())


def ready(folder: Path, rank: int = 0) -> dict[str, str]:
    """The environment of a fake rank that is at it."""
    last = time.monotonic() + 30
    while not (note := folder / f"ready-{rank}").exists():
        assert time.monotonic() < last
        time.sleep(0.02)
    found: dict[str, str] = json.loads(note.read_text())
    return found


def test_a_rank_that_is_done_says_so_and_leaves_nothing(host: Host, tmp_path: Path) -> None:
    host.begin(asked(tmp_path, "done", rank=1))
    seen = seen_when(host, lambda seen: seen.ended)
    assert seen.words is not None
    assert (seen.words.kind, seen.run) == ("done", "runs/fake")
    assert not Path(ready(tmp_path, 1)["place"]).exists()
    assert host.look((0, 0), "") == seen, "an answer that got lost is given again"


def test_what_the_first_rank_prints_is_handed_on_from_where_it_is_known(host: Host, tmp_path: Path) -> None:
    host.begin(asked(tmp_path, "exit:3"))
    seen = seen_when(host, lambda seen: seen.ended)
    assert seen.printed[0] == b"what it printed last\n"
    assert seen.words is not None
    assert seen.words.message == "rank 0 of 2 on node-7 ended with exit code 3, unexplained"


def test_an_order_reaches_the_rank_once(host: Host, tmp_path: Path) -> None:
    host.begin(asked(tmp_path, "steps"))
    ready(tmp_path)
    seen = seen_when(host, lambda seen: seen.ended, f"stop {int(signal.SIGTERM)}")
    assert seen.said is not None
    assert (seen.said.kind, seen.said.signal) == ("interrupted", signal.SIGTERM)


def test_a_rank_that_is_ended_is_gone_with_what_it_had_started(host: Host, tmp_path: Path) -> None:
    host.begin(asked(tmp_path, "engine:hang"))
    place = ready(tmp_path)["place"]
    assert host.end((0, 0)).ended
    last = time.monotonic() + 10
    while leftovers(f"OPD_LAUNCH={place}"):
        assert time.monotonic() < last
    assert not Path(place).exists()


def test_a_folder_that_a_node_does_not_have_is_the_users_mistake(host: Host, tmp_path: Path) -> None:
    host.begin(replace(asked(tmp_path, "done"), folder="/nowhere"))
    words = host.look((0, 0), "").words
    assert words is not None
    assert words.kind == "mistake"
    assert "/nowhere: No such file or directory on node-7" in words.message


def test_one_that_has_not_begun_has_ended_and_touches_nothing(host: Host, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    os.chdir(tmp_path)
    assert host.look((0, 0), "").ended
    assert host.end((0, 0)).ended
    assert (tmp_path / "mine").read_text() == "kept"


def test_rays_own_variables_stay_with_its_own_processes(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    host.begin(asked(tmp_path, "hang"))
    environment = ready(tmp_path)
    host.end((0, 0))
    assert not [name for name in environment if name.startswith("RAY_")]
    assert environment["GLOO_SOCKET_IFNAME"] == "lo", "all are on this machine"


@pytest.mark.parametrize(
    ("visible", "own", "seen"),
    [("4,5,7", 3, ("4", "4,5,7")), ("6", 1, ("6", None)), ("0,1,2,3", 3, ("0,1,2,3", None))],
)
def test_of_the_gpus_that_ray_gave_it_a_rank_sees_the_first_and_its_engines_have_the_rest(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, own: int, seen: tuple[str, str | None]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv(GPUS, "")  # what becomes of it goes with the test
    monkeypatch.delenv(GPUS)
    host.begin(replace(asked(tmp_path, "hang"), gpus=own))
    environment = ready(tmp_path)
    host.end((0, 0))
    assert (environment["CUDA_VISIBLE_DEVICES"], environment.get(GPUS)) == seen
    engines = [card(number, own - 1).get("CUDA_VISIBLE_DEVICES") for number in range(own - 1)]
    assert engines == visible.split(",")[len(visible.split(",")) - own + 1 :]


def test_ranks_meet_at_a_port_that_nobody_listens_at(host: Host) -> None:
    port = host.port()
    assert port in PORTS
    with socket.socket() as taken:
        taken.bind(("", port))


def test_an_address_has_an_interface() -> None:
    assert interface("127.0.0.1") == "lo"
    assert interface("192.0.2.77") == ""


def test_ranks_on_ray_are_planned_and_joined_as_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    devices = load("quickstart", ["devices=ray", "devices.ranks=2"]).config.devices
    assert devices == Ray(ranks=2)
    assert (devices.sharing, devices.ahead) == (2, 0)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("OPD_STORE", "tcp://here:1")):
        monkeypatch.setenv(name, value)

    class Here(Fake):
        def here(self) -> str:
            return "done here"

    assert devices.start(Here("", [])) == "done here"


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape(install("ray"))):
        Ray(ranks=2).start(Fake("", []))


@pytest.mark.parametrize(
    ("address", "says"),
    [("ray://head:10001", "on one of the cluster's machines"), ("127.0.0.1:1", "nobody answers there")],
)
def test_an_address_of_no_cluster_is_refused(address: str, says: str) -> None:
    with pytest.raises(UserError, match=f"devices.address={address}: .*{says}"), cluster.connected(address, None):
        pass


def test_rays_variables_are_there_for_as_long_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_A", "mine")
    with cluster.variables({"RAY_A": "1", "RAY_B": "2"}):
        assert (os.environ["RAY_A"], os.environ["RAY_B"]) == ("mine", "2")
        os.environ["RAY_C"] = "Ray's own"
    assert [os.environ.get(name) for name in ("RAY_A", "RAY_B", "RAY_C")] == ["mine", None, None]


class Both:
    """Two ranks, each a thread; the second may look into another folder."""

    size, mesh = 2, None

    def __init__(self, rank: int, meeting: list[object], barrier: threading.Barrier) -> None:
        self.rank, self._meeting, self._barrier = rank, meeting, barrier

    def gather(self, value: object) -> list[object]:
        self._meeting[self.rank] = value
        self._barrier.wait(10)
        found = list(self._meeting)
        self._barrier.wait(10)
        return found


@pytest.mark.parametrize("shared", [True, False])
def test_a_folder_that_ranks_do_not_share_is_refused_by_all(shared: bool, tmp_path: Path) -> None:
    meeting: list[object] = [None, None]
    barrier = threading.Barrier(2)
    said: list[str] = ["", ""]

    class Elsewhere(Both):
        def gather(self, value: object) -> list[object]:
            found = super().gather(value)
            return [[str(tmp_path / "elsewhere")], *found[1:]] if self.rank and isinstance(found[0], list) else found

    def look(rank: int) -> None:
        kind = Both if shared else Elsewhere
        try:
            refuse_separate(RunFolder(tmp_path / "runs/new"), kind(rank, meeting, barrier))
        except UserError as error:
            said[rank] = str(error)

    threads = [threading.Thread(target=look, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not list(tmp_path.iterdir()), "nothing is left of it"
    assert all(("rank 1 on " in text) != shared for text in said)
