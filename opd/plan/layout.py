"""On how many devices a run is laid out, and what that makes of its work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from opd.called import called
from opd.config.settings import Config
from opd.devices.beside import Beside
from opd.devices.launched import several, started
from opd.devices.one import One
from opd.devices.ranks import Ranks, copies
from opd.plan.cards import NETWORK, NODE, Card
from opd.types import UserError


@dataclass(frozen=True)
class Layout:
    """Equal processes, each with one device, an engine, and a shard of student and teacher; one: all is whole.

    Or engines are apart, with a device each, beside processes that learn.
    """

    ranks: int = 1
    engines: int = 0
    """That are apart; 0: every rank has its own."""
    ahead: int = 0
    """Steps that these write ahead."""
    shard: int | None = None
    """Ranks, neighbours, that have one copy of the weights among them; None: all."""
    spread: int = 1
    """Devices that the model of each engine that is apart is on."""

    @property
    def group(self) -> int:
        """Ranks that a copy of the weights is cut into parts for."""
        return self.shard or self.ranks

    @property
    def setting(self) -> str:
        """As it is typed."""
        if self.ranks == 1 and not self.engines:
            return "devices=one"
        learners = [f"devices.ranks={self.ranks}"] if self.ranks > 1 else []
        learners += [f"devices.shard={self.shard}"] if self.shard else []
        writers = [f"devices.engines={self.engines}", f"devices.ahead={self.ahead}"] if self.engines else []
        writers += [f"devices.tensor_parallel={self.spread}"] if self.spread > 1 else []
        return " ".join([f"devices={'apart' if self.engines else 'ranks'}", *learners, *writers])

    @property
    def writers(self) -> int:
        """Engines, wherever they are."""
        return self.engines or self.ranks

    def name(self, card: Card) -> str:
        """As a device that learns is called in a table."""
        if card.cpu:
            return "this machine" if self.ranks == 1 else f"this machine, a share for each of {self.ranks} ranks"
        if self.engines:
            return f"the {card.name} that learns" if self.ranks == 1 else f"each of {self.ranks} {card.name} that learn"
        return card.name if self.ranks == 1 else f"each of {self.ranks} {card.name}"

    def usable(self, card: Card) -> int:
        """Bytes that a rank can have; on a processor they share the machine's."""
        return card.usable // (self.ranks if card.cpu else 1)

    def link(self, card: Card, within: bool) -> float:
        """Bytes a second between ranks of a group, or between groups: a machine's own links where one has them all."""
        near = self.ranks + self.engines * self.spread <= NODE or (within and NODE % self.group == 0)
        return card.link if near else min(card.link, NETWORK)

    def sequences(self, config: Config) -> int:
        """Rollouts of a step that one rank has."""
        return math.ceil(config.data.prompts_per_step * config.sampling.n / self.ranks)

    def positions(self, config: Config, micro_tokens: int) -> int:
        """Positions that go through a model at once, at most: a longer sequence stands alone, a step may have fewer."""
        return min(max(micro_tokens, config.longest_trained), self.positions_of_step(config))

    def positions_of_step(self, config: Config) -> int:
        """Positions of all rollouts of a step that one rank has, at most."""
        return self.sequences(config) * config.longest_trained


def layout_of(config: Config, gpus: int | None) -> Layout:
    """What a config's `devices` mean on so many GPUs; UserError for kinds that are not planned here."""
    devices = config.devices
    if isinstance(devices, One):
        return Layout()
    if isinstance(devices, Beside) and devices.engines:
        own, spread = devices.engines_gpus, devices.tensor_parallel
        ranks = _learners(devices, None if gpus is None else max(1, gpus - own))
        if gpus is not None and gpus < ranks + own:
            learners = "one that learns" if ranks == 1 else f"one for each of {ranks} ranks"
            each = "one" if spread == 1 else f"devices.tensor_parallel={spread}"
            raise UserError(
                f"--gpus {gpus}: devices.engines={devices.engines} takes {ranks + own}, {each} for each engine and "
                f"{learners}"
            )
        return Layout(ranks, devices.engines, devices.ahead, _group(ranks, devices.shard), spread)
    if isinstance(devices, Ranks):
        ranks = _learners(devices, gpus)
        return Layout(ranks, shard=_group(ranks, devices.shard))
    raise UserError(f"devices={called('devices', devices)}: opd plan knows one, ranks, apart and ray")


def _learners(devices: Ranks, left: int | None) -> int:
    """How many learn: as many as are set, or there are GPUs `left` for; else those that were started, or would be."""
    found = devices.ranks or left or (several() if started() else devices.count)
    if not found:
        raise UserError(
            "devices.ranks=null: that is one for each GPU, and there is none here; say how many there will be, as in "
            "--gpus 8, or give devices.ranks"
        )
    return found


def _group(ranks: int, shard: int | None) -> int | None:
    """Ranks of a copy, where there are several copies."""
    several, size = (1, *copies(ranks, shard))[-2:]
    return size if several > 1 else None
