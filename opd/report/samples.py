"""Which completions a page shows, and its worst tokens: what the teacher disagrees with most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from opd.transcripts import Token, Transcript
from opd.types import UserError

STEPS = 6
"""Steps that go into a page unless they are named."""
SAMPLES = 8
"""Completions of one step and run."""
TOKENS = 25_000
"""Tokens of a whole page: with what is said of each about 4 MB."""
WORST = 40
AROUND = 24
"""Tokens that a worst one is shown with, before it."""


@dataclass(frozen=True)
class Cell:
    """What a page shows of one run at one step."""

    run: int
    step: int
    samples: tuple[Transcript, ...]
    written: int
    """Completions in the file; 0: the step was not recorded."""
    cut: int
    """Tokens at the ends of the shown ones that were left out."""

    @property
    def left_out(self) -> int:
        """Completions that the page does not show."""
        return self.written - len(self.samples)


@dataclass(frozen=True)
class Worst:
    """A token, and where it is."""

    run: int
    step: int
    sample: int
    place: int
    token: Token
    before: str
    """The text that it follows."""

    @property
    def anchor(self) -> str:
        """What a link calls it."""
        return anchor(self.run, self.step, self.sample, self.place)


def anchor(run: int, step: int, sample: int, place: int) -> str:
    """The name of a token on the page."""
    return f"r{run}-s{step}-c{sample}-t{place}"


def choose_steps(recorded: Sequence[Sequence[int]], asked: Sequence[int] = (), most: int = STEPS) -> list[int]:
    """Steps to show: those asked for, else `most` of the recorded ones, the first, the last, and evenly between.

    Steps that all runs have come before those that only some have.

    Raises:
        UserError: a step is asked for that no run has recorded.
    """
    union = sorted({s for steps in recorded for s in steps})
    for step in asked:
        if step not in union:
            there = ", ".join(map(str, union)) or "none: log.rollouts_every says how often"
            raise UserError(f"--step {step}: its rollouts were not recorded; there are {there}")
    if asked:
        return sorted(set(asked))
    common = [s for s in union if all(s in steps for steps in recorded)]
    return evenly(common or union, most)


def evenly(items: Sequence[int], most: int) -> list[int]:
    """At most so many, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def choose_samples(transcripts: Sequence[Transcript], most: int = SAMPLES) -> list[Transcript]:
    """The first completion of each of the first prompts, then further ones: runs on the same prompts show the same."""
    firsts: dict[str, int] = {}
    for i, t in enumerate(transcripts):
        firsts.setdefault(t.id, i)
    order = [*firsts.values(), *(i for i in range(len(transcripts)) if i not in set(firsts.values()))]
    return [transcripts[i] for i in order[:most]]


def make_cells(
    recorded: Sequence[Sequence[int]], steps: Sequence[int], read: Callable[[int, int], Sequence[Transcript]]
) -> list[Cell]:
    """Cells of every step and run; `read(run, step)` gives the transcripts. All share `TOKENS` evenly."""
    places = [(run, step) for step in steps for run in range(len(recorded))]
    there = sum(step in recorded[run] for run, step in places)
    room = TOKENS // max(1, there)
    return [
        fit(run, step, read(run, step), room) if step in recorded[run] else Cell(run, step, (), 0, 0)
        for run, step in places
    ]


def fit(run: int, step: int, transcripts: Sequence[Transcript], room: int) -> Cell:
    """As many completions as have room; of the first one, which is always shown, its end is left out where it must."""
    shown: list[Transcript] = []
    used = cut = 0
    for t in choose_samples(transcripts):
        if used + len(t.tokens) > room:
            if not shown:
                shown, cut = [replace(t, tokens=t.tokens[:room])], len(t.tokens) - room
            break
        shown.append(t)
        used += len(t.tokens)
    return Cell(run, step, tuple(shown), len(transcripts), cut)


def worst_tokens(cells: Sequence[Cell], most: int = WORST) -> list[Worst]:
    """The shown tokens that the teacher finds the most too likely, worst first; only such as it finds too likely."""
    found = [
        (token.disagreement, cell, i, place)
        for cell in cells
        for i, t in enumerate(cell.samples)
        for place, token in enumerate(t.tokens)
        if not math.isnan(token.disagreement) and token.disagreement > 0
    ]
    found.sort(key=lambda item: -item[0])  # stable: equal ones stay in the page's order
    return [_worst(cell, i, place) for _, cell, i, place in found[:most]]


def _worst(cell: Cell, sample: int, place: int) -> Worst:
    tokens = cell.samples[sample].tokens
    before = "".join(t.text for t in tokens[max(0, place - AROUND) : place])
    return Worst(cell.run, cell.step, sample, place, tokens[place], ("…" if place > AROUND else "") + before)
