"""Ranks on nodes of a Ray cluster, each held by an actor in a placement group."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from opd.devices.bundles import Bundle, Wanted, ranked
from opd.devices.host import Asked, Host, Seen
from opd.devices.launch import POLL, Stop, Stopped
from opd.devices.lifeline import STORE
from opd.devices.report import Report, first_line
from opd.devices.watched import Watched
from opd.types import UserError

CARRIED = ("OPD_", "HF_", "WANDB_", "OMP_NUM_THREADS", "PYTHONPATH")
"""How the variables begin that ranks get from here; the others are those of their node."""
PATIENCE = 45.0
"""Seconds that a node gets to end a rank, or Ray to notice that the node is gone: 15 where nobody answers there."""


@dataclass(frozen=True)
class Place:
    """Room for a rank."""

    actor: Any
    node: str
    """Ray's name for it."""
    host: str
    address: str
    gpus: int
    """Those that are its own."""

    @property
    def name(self) -> str:
        """As people are told of it."""
        return f"{self.host} ({self.address}, Ray's node {self.node[:8]})"


@contextmanager
def room(wanted: Wanted, wait: float, stop: Stop) -> Iterator[list[Place]]:
    """Room for every rank, on as few nodes as it takes, in their order.

    Args:
        wanted: how much.
        wait: seconds until the cluster must have room.
        stop: whether a signal has come.

    Raises:
        UserError: the cluster has none in time.
        Stopped: a signal came first.
    """
    bundles = wanted.bundles(ray.cluster_resources())
    group = placement_group(bundles, strategy="PACK")
    try:
        last = time.monotonic() + wait
        while not group.wait(0.5):
            if stop.signal:
                raise Stopped(stop.signal)
            if time.monotonic() > last:
                nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
                raise UserError(wanted.refused(bundles, nodes, wait))
        if stop.signal:
            raise Stopped(stop.signal)
        yield places(group, bundles, wanted.engines)
    finally:
        remove_placement_group(group)  # and its actors


def places(group: Any, bundles: Sequence[Bundle], engines: int) -> list[Place]:
    """An actor in each bundle of a placement group, in the order of ranks."""
    nodes = {node["NodeID"]: node for node in ray.nodes()}
    on = placement_group_table(group)["bundles_to_node_id"]
    here = ray.get_runtime_context().get_node_id()
    kind: Any = ray.remote(Host)
    made = []
    for bundle in ranked(on, here, engines):
        cores, gpus = bundles[bundle]["CPU"], int(bundles[bundle].get("GPU", 0))
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        actor = kind.options(num_cpus=cores, num_gpus=gpus, scheduling_strategy=strategy, max_restarts=0).remote()
        node = nodes[on[bundle]]
        made.append(Place(actor, on[bundle], node["NodeManagerHostname"], node["NodeManagerAddress"], gpus))
    return made


def begun(command: Sequence[str], text: str, room: Sequence[Place]) -> Iterator[Remote]:
    """Ranks that begin in their places, one after the other."""
    one_machine = len({place.address for place in room}) == 1
    try:
        port = ray.get(room[0].actor.port.remote())
    except RayError as error:
        raise UserError(f"devices=ray: {room[0].name} cannot start a rank of opd: {first_line(error)}") from error
    meeting = "127.0.0.1" if one_machine else room[0].address
    environment = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    for rank, place in enumerate(room):
        together = [other for other, at in enumerate(room) if at.node == place.node]
        told = {
            STORE: f"tcp://{meeting}:{port}", "LOCAL_RANK": str(together.index(rank)),
            "LOCAL_WORLD_SIZE": str(len(together)), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        asked = Asked(
            command, text, rank, len(room), f" on {place.name}", os.getcwd(), told,
            "" if one_machine else place.address, environment, place.gpus,
        )  # fmt: skip
        yield Remote(place, asked)


class Remote(Watched):
    """A rank, as its actor tells of it."""

    def __init__(self, place: Place, asked: Asked) -> None:
        """Have it begin."""
        self.rank, self.given_up = asked.rank, False
        self._who, self._place = f"rank {asked.rank} of {asked.size} on {place.name}", place
        self._seen = Seen(ended=False, said=None)
        self._order, self._read = "", (0, 0)
        self._asked = place.actor.begin.remote(asked)

    @property
    def ended(self) -> bool:
        """Whether it is gone, or its actor is."""
        if not self._seen.ended and ray.wait([self._asked], timeout=0)[0]:
            self._hear()
            if not self._seen.ended:
                self._asked = self._place.actor.look.remote(self._read, self._order)
        return self._seen.ended

    @property
    def said(self) -> Report | None:
        """Its report, but for one that it has begun."""
        return self._seen.said

    def tell(self, order: str) -> None:
        """Send it an order, when it is asked next."""
        self._order = order

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.given_up = not self.ended
        last = time.monotonic() + PATIENCE
        while not self._seen.ended:
            self._asked = self._place.actor.end.remote(self._read)
            self._hear(max(0.0, last - time.monotonic()))
            if not self._seen.ended:
                time.sleep(POLL)

    def last_words(self) -> Report:
        """What it has said, or what there is to say of it."""
        return self._seen.words or Report("died", f"{self._who} could not be started")

    def _hear(self, seconds: float | None = None) -> None:
        """Take the answer to what was asked last."""
        try:
            seen = ray.get(self._asked, timeout=seconds)
        except GetTimeoutError:
            self._lost("does not answer any more")
        except ActorUnavailableError:
            return  # Ray tells in a moment whether it is for ever
        except RayActorError:
            alive = any(node["NodeID"] == self._place.node and node["Alive"] for node in ray.nodes())
            self._lost("lost the actor that held it" if alive else "was lost with its node")
        except RayError as error:
            self._lost(f"could not be started: {first_line(error)}")
        else:
            if seen is not None:
                now = time.time()  # nodes have clocks of their own
                said, words = (told and replace(told, at=now) for told in (seen.said, seen.words))
                self._seen = replace(seen, said=said, words=words)
                self._print(seen.printed)

    def _lost(self, how: str) -> None:
        self.given_up = False
        words = Report("died", f"{self._who} {how}", run=self._seen.run, at=time.time())
        self._seen = Seen(ended=True, said=None, words=words)

    def _print(self, printed: tuple[bytes, bytes]) -> None:
        out, err = printed
        self._read = (self._read[0] + len(out), self._read[1] + len(err))
        for stream, text in ((sys.stdout, out), (sys.stderr, err)):
            if text:
                with suppress(OSError):  # closed by now
                    stream.write(text.decode("utf-8", "replace"))
                    stream.flush()
