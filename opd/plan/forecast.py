"""A whole prediction: who takes part, on what, with how much memory, in how many seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opd.config.settings import Config
from opd.plan.cards import Card
from opd.plan.crew import Crew, crew_of
from opd.plan.host import Host, host
from opd.plan.layout import Layout
from opd.plan.memory import EXACT, Memory, memory
from opd.plan.seconds import seconds
from opd.plan.work import Lengths

HOUR = 3600.0


@dataclass(frozen=True)
class Forecast:
    """What one layout of a config comes to. Evaluations, preflight and set-up are not in its times."""

    crew: Crew
    card: Card
    layout: Layout
    lengths: Lengths
    devices: tuple[Memory, ...]
    phases: Mapping[str, float]
    """Seconds of each phase of a step."""

    @property
    def fits(self) -> bool:
        """Whether every device has room in every phase, and a processor's memory for what is read first."""
        return all(device.fits for device in self.devices) and not (
            self.card.cpu and self.host.loading > self.card.memory
        )

    @property
    def host(self) -> Host:
        """Memory of each machine beside its devices."""
        return host(self.crew, self.card, self.layout)

    @property
    def gpus(self) -> int:
        """Devices that are held, busy or not."""
        return sum(device.count for device in self.devices)

    @property
    def step(self) -> float:
        """Seconds of a step; engines that write ahead work while the learner does."""
        if not self.layout.ahead:
            return math.fsum(self.phases.values())
        learning = self.phases["score"] + self.phases["update"]
        return max(math.fsum(self.phases.values()) - learning, learning)

    @property
    def hours(self) -> float:
        """Of all steps."""
        return self.step * self.crew.config.steps / HOUR

    def record(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        return {
            "gpu": self.card.name, "layout": self.layout.setting, "gpus": self.gpus, "fits": self.fits,
            "lengths": vars(self.lengths), "exact": list(EXACT),
            "devices": [
                {"device": d.device, "count": d.count, "capacity": d.capacity, "fits": d.fits,
                 "engines_start": d.starts, "bytes": {phase: dict(parts) for phase, parts in d.phases.items()}}
                for d in self.devices
            ],
            "host": vars(self.host), "seconds": dict(self.phases), "step_seconds": self.step, "hours": self.hours,
            "gpu_hours": self.hours * self.gpus, "notes": self.crew.notes,
        }  # fmt: skip


def forecast(config: Config, card: Card, layout: Layout, lengths: Lengths, auto: str | None = None) -> Forecast:
    """Predict one layout of a config; no weight is read.

    Raises:
        UserError: a model's config is not to be had.
    """
    crew = crew_of(config, auto)
    phases = seconds(crew, card, layout, lengths)
    return Forecast(crew, card, layout, lengths, memory(crew, card, layout), phases)
