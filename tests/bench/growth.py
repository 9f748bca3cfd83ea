"""How time and memory of an update grow with the work: `python -m tests.bench.growth [--plot STEM]`; one thread.

Two layers of SmolLM2's widths in float32. Sizes take turns, so that a noisy minute hits all of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from opd.batch import to_batch
from opd.devices.memory import keep_freed
from opd.learner.student import Student
from opd.objectives import ReverseKL
from opd.recipe.plots import figure, save
from tests.bench import cases, meter, steps

TURNS = 3
MICRO = 4096
"""Positions that go through the model at once."""


@dataclass(frozen=True)
class Growth:
    """What is made larger, all else being the same."""

    name: str
    sizes: tuple[int, ...]
    lengths: Callable[[int], cases.Lengths]
    vocabulary: Callable[[int], int] = lambda size: cases.VOCABULARY


def of_length(size: int) -> cases.Lengths:
    """As many positions in all, a quarter of them prompt."""
    return cases.even(4096 // size, size // 4, size - size // 4)


GROWTHS = (
    Growth("tokens trained", (256, 1024, 4096, 8192), lambda size: cases.even(size // 128, 32, 128)),
    Growth("tokens of a sequence", (128, 512, 1024, 2048, 4096), of_length),
    Growth("vocabulary", (4096, 16384, 65536, 131072), lambda size: cases.even(8, 32, 128), lambda size: size),
)


@dataclass(frozen=True)
class Found:
    """What was measured of one growth, size by size."""

    growth: Growth
    seconds: list[list[float]]
    mib: list[float]

    def slope(self, values: list[float]) -> float:
        """In a plot of logarithms, between the two largest sizes: 1 is in proportion."""
        a, b = self.growth.sizes[-2:]
        return float(np.log(values[-1] / values[-2]) / np.log(b / a))


def measure(growth: Growth, folder: Path) -> Found:
    """Load a model for each vocabulary, and let the sizes take turns."""
    students: dict[int, Student] = {}
    for size in growth.sizes:
        vocabulary = growth.vocabulary(size)
        if vocabulary not in students:
            model = cases.save_model(folder / f"{vocabulary}", 2, torch.float32, vocabulary)
            students[vocabulary] = steps.student_of(model, "float32", vocabulary)

    def update(size: int) -> Callable[[], object]:
        vocabulary = growth.vocabulary(size)
        made = to_batch(cases.scored(growth.lengths(size), vocabulary=vocabulary), 0, MICRO)
        return lambda: students[vocabulary].update(made, ReverseKL(), steps.LR)

    updates = [update(size) for size in growth.sizes]
    turns = [[meter.timed(call) for call in updates] for _ in range(TURNS + 1)][1:]
    return Found(growth, [list(own) for own in zip(*turns, strict=True)], [meter.peak_growth(call) for call in updates])


def table(found: list[Found]) -> Table:
    """Sizes, times, memory, and how the last two compare."""
    out = Table("", "sizes", "seconds, median", "its slope", "peak, MiB", "its slope", title_justify="left")
    for one in found:
        seconds = [median(own) for own in one.seconds]
        slopes = [f"{one.slope(values):.2f}" for values in (seconds, one.mib)]
        cells = [[f"{v:.2f}" for v in seconds], [f"{v:.0f}" for v in one.mib]]
        lines = ["\n".join(map(str, one.growth.sizes)), "\n".join(cells[0]), slopes[0], "\n".join(cells[1]), slopes[1]]
        out.add_row(one.growth.name, *lines, end_section=True)
    return out


def plot(found: list[Found], stem: Path) -> None:
    """Time and memory over each size, both axes logarithmic."""
    drawn, axes = figure(len(found), width=3.4)
    for ax, one in zip(axes, found, strict=True):
        ax.loglog(one.growth.sizes, [median(own) for own in one.seconds], marker="o", label="seconds")
        ax.loglog(one.growth.sizes, [mib / 1024 for mib in one.mib], marker="s", label="peak, GiB")
        ax.set_xticks(one.growth.sizes, [f"{size:,}" for size in one.growth.sizes], fontsize=7, rotation=30)
        ax.minorticks_off()
        ax.set_xlabel(one.growth.name)
        ax.legend(fontsize=8)
    save(drawn, stem)


def main() -> int:
    """Measure all, print and draw."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--plot", type=Path, metavar="STEM", help="draw it, too: STEM.png and STEM.svg")
    given = parser.parse_args()
    keep_freed()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        found = [measure(growth, Path(name)) for growth in GROWTHS]
    Console(highlight=False).print(table(found))
    if given.plot is not None:
        plot(found, given.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
