"""Memory of the machine that holds the devices: what is read there first, and what lies there between its turns."""

from __future__ import annotations

from dataclasses import dataclass

from opd.plan import held
from opd.plan.cards import NODE, Card
from opd.plan.crew import Crew
from opd.plan.held import BYTES, FLOAT32
from opd.plan.layout import Layout
from opd.plan.memory import offloaded

SETS = 2
"""Copies of the weights on their way to engines that are apart: those that these have, and the next ones."""


@dataclass(frozen=True)
class Host:
    """Bytes of one machine. Programs, and the files that the system keeps a copy of, come on top."""

    model: str
    """The largest of the models that are read into it."""
    processes: int
    """Ranks of the machine, each of which reads all of every model before it keeps its shard."""
    each: int
    """Bytes that one of them needs for that."""
    staying: int
    """Bytes that stay there: a teacher between its turns, weights on their way to engines that are apart."""

    @property
    def loading(self) -> int:
        """While the largest model is read by all at once."""
        return self.processes * self.each


def host(crew: Crew, card: Card, layout: Layout) -> Host:
    """What a layout needs; packed teachers are read straight onto their devices, and engines read their own files."""
    read = {"student": held.trained(crew.student, crew.compute).weights}
    read |= {j.name: held.frozen(j.shape, j.dtype) for j in crew.judges if j.own and j.bits is None}
    model = max(read, key=lambda name: read[name])
    bodies = sum(held.frozen(j.shape, j.dtype) for j in crew.judges if j.own and offloaded(j, card, layout))
    width = FLOAT32 if crew.lora is None else BYTES[crew.compute]
    copies = crew.student.parameters * width * (SETS + layout.ahead) if layout.engines else 0
    return Host(model, min(layout.ranks, NODE), read[model], bodies + copies)
