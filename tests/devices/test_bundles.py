"""What a run asks a cluster for, and what it says where there is no room: numbers alone, without Ray."""

from __future__ import annotations

import pytest

from opd.devices.bundles import Wanted, ranked
from opd.types import UserError

GPUS = {"CPU": 32.0, "GPU": 8.0, "memory": 1e12}
"""What a cluster has in all; Ray names more than is asked for."""
CORES = {"CPU": 32.0}
SMALL = {"CPU": 16.0, "GPU": 4.0, "node:10.0.0.2": 1.0}


def test_ranks_with_engines_of_their_own_take_equal_bundles() -> None:
    assert Wanted(3, 2).bundles(GPUS) == [{"CPU": 2.0, "GPU": 1.0}] * 3
    assert Wanted(3, 2).bundles(CORES) == [{"CPU": 2.0}] * 3


def test_engines_apart_are_in_the_first_ranks_bundle() -> None:
    first, *others = Wanted(3, 2, engines=4, threads=3).bundles(GPUS)
    assert (first, others) == ({"CPU": 14.0, "GPU": 5.0}, [{"CPU": 2.0, "GPU": 1.0}] * 2)
    assert Wanted(1, 2, engines=4, threads=3).bundles(CORES) == [{"CPU": 14.0}]
    assert Wanted(1, 2, engines=1, threads=3, each=2).bundles(GPUS) == [{"CPU": 8.0, "GPU": 3.0}]


@pytest.mark.parametrize(("engines", "count"), [(0, 8), (3, 5), (7, 1)])
def test_ranks_that_are_not_counted_take_every_gpu_that_is_no_engines(engines: int, count: int) -> None:
    bundles = Wanted(None, 1, engines).bundles(GPUS)
    assert len(bundles) == count
    assert sum(bundle["GPU"] for bundle in bundles) == 8


@pytest.mark.parametrize(
    ("engines", "have", "says"),
    [(0, CORES, "the cluster has no GPU; give"), (8, GPUS, "8 GPUs, of which devices.engines=8 leaves none; give")],
)
def test_ranks_that_are_not_counted_need_gpus(engines: int, have: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=f"devices.ranks=null: .*{says}"):
        Wanted(None, 1, engines).bundles(have)
    with pytest.raises(UserError, match=r"devices\.engines=2 devices\.tensor_parallel=4 leaves none; give"):
        Wanted(None, 1, engines=2, each=4).bundles(GPUS)


@pytest.mark.parametrize("wanted", [Wanted(3, 2), Wanted(1, 4, 2, 3), Wanted(5, 1, 1)])
def test_a_cluster_that_is_begun_for_a_run_has_cores_for_all_that_it_asks_for(wanted: Wanted) -> None:
    assert wanted.cores == sum(bundle["CPU"] for bundle in wanted.bundles(CORES))
    assert Wanted(None, 1, 2).cores is None


def test_the_first_rank_is_where_its_engines_have_room_and_its_neighbours_come_next() -> None:
    on = {0: "b", 1: "a", 2: "c", 3: "b", 4: "a"}
    assert ranked(on, here="a", engines=1) == [0, 3, 1, 4, 2]
    assert ranked(on, here="a", engines=0) == [1, 4, 0, 3, 2], "equal ones begin on this node"


def refused(wanted: Wanted, *nodes: dict[str, float]) -> str:
    have = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    return wanted.refused(wanted.bundles(have), nodes, 60)


def test_where_there_is_no_room_it_is_said_what_was_asked_and_which_nodes_there_are() -> None:
    text = refused(Wanted(12, 2), SMALL, SMALL, {"CPU": 8.0})
    assert text == (
        "devices.ranks=12: the cluster had no room for them within 60 s (devices.wait); each takes 2 CPU, 1 GPU; "
        "its nodes: 2 of 16 CPU, 4 GPU and 1 of 8 CPU"
    )


@pytest.mark.parametrize(
    ("wanted", "nodes", "instead"),
    [
        (Wanted(3, 1, engines=4), [SMALL, SMALL], "take devices.engines=3"),
        (Wanted(3, 14, engines=4), [SMALL, SMALL], "take devices.engines=2"),
        (Wanted(1, 4, engines=9, threads=4), [{"CPU": 20.0}], "take devices.engines=4"),
        (Wanted(3, 1, engines=4, each=3), [SMALL, SMALL], "take devices.engines=1"),
        (Wanted(1, 4, engines=9, threads=2, each=4), [{"CPU": 20.0}], "take devices.engines=2"),
        (
            Wanted(2, 8, engines=1),
            [{"CPU": 8.0}, {"CPU": 8.0}],
            "none has room for a rank and one engine: take devices",
        ),
    ],
)
def test_engines_that_no_node_has_room_for_are_told_how_many_one_has(
    wanted: Wanted, nodes: list[dict[str, float]], instead: str
) -> None:
    assert instead in refused(wanted, *nodes)


def test_where_a_node_could_have_them_it_is_not_the_engines_that_are_too_many() -> None:
    text = refused(Wanted(6, 1, engines=3), SMALL, SMALL)
    assert text.startswith("devices.ranks=6 devices.engines=3: ")
    assert (
        "each takes 1 CPU, 1 GPU; the first one, with its engines on one node, takes 4 CPU, 4 GPU; its nodes: 2 of"
        in text
    )
    assert "take devices" not in text
    assert "(devices.wait); it takes 9 CPU; its nodes: 1 of 8 CPU" in refused(Wanted(1, 9), {"CPU": 8.0})
