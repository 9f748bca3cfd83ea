"""On how many devices a run is laid out, and what that makes of its work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from opd.config.settings import Config
from opd.devices.one import One
from opd.devices.ranks import Ranks
from opd.plan.cards import NETWORK, NODE, Card
from opd.types import UserError


@dataclass(frozen=True)
class Layout:
    """Equal processes, each with one device, an engine, and a shard of student and teacher; one: all is whole."""

    ranks: int = 1

    @property
    def setting(self) -> str:
        """As it is typed."""
        return "devices=one" if self.ranks == 1 else f"devices=ranks devices.ranks={self.ranks}"

    def name(self, card: Card) -> str:
        """As a device is called in a table."""
        device = "this machine" if card.cpu else card.name
        return device if self.ranks == 1 else f"each of {self.ranks} {card.name}"

    def link(self, card: Card) -> float:
        """Bytes a second between neighbours: of a machine's own links, of the network where there are several."""
        return card.link if self.ranks <= NODE else min(card.link, NETWORK)

    def sequences(self, config: Config) -> int:
        """Rollouts of a step that one rank has."""
        return math.ceil(config.data.prompts_per_step * config.sampling.n / self.ranks)

    def positions(self, config: Config, micro_tokens: int) -> int:
        """Positions that go through a model at once, at most: a longer sequence stands alone, a step may have fewer."""
        longest = config.data.max_prompt_tokens + config.sampling.max_tokens
        return min(max(micro_tokens, longest), self.sequences(config) * longest)


def layout_of(config: Config, gpus: int | None) -> Layout:
    """What a config's `devices` mean on so many GPUs; UserError for kinds that are not planned here."""
    devices = config.devices
    if isinstance(devices, One):
        return Layout()
    if isinstance(devices, Ranks):
        return Layout(devices.ranks or gpus or 1)
    raise UserError(f"devices={type(devices).__name__}: opd plan knows devices=one and devices=ranks")
