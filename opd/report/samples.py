"""Which completions a page shows, and its worst tokens: what the teacher disagrees with most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from opd.run.transcripts import Token, Transcript
from opd.types import UserError

STEPS = 6
"""Steps that go into a page unless they are named."""
FIRST, MINDED = 4, 4
"""Completions of one step and run: the first of the first prompts, and those with the worst tokens of all."""
TOKENS = 25_000
"""Tokens of a whole page: with what is said of each about 4 MB."""
WORST = 40
LEAST = 0.1
"""Nats from which on a token can be one of the worst."""
AROUND = 24
"""Tokens that a worst one is shown with, before it."""


@dataclass(frozen=True)
class Cell:
    """What a page shows of one run at one step."""

    run: int
    step: int
    samples: tuple[Transcript, ...]
    numbers: tuple[int, ...]
    """Their places in the step's file, from 1."""
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
    number: int
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


def choose_samples(transcripts: Sequence[Transcript]) -> list[int]:
    """Places of those to show: `FIRST` ones, each of another prompt, then the `MINDED` ones with the worst tokens.

    Runs on the same prompts show the same first ones.
    """
    by_prompt: dict[str, int] = {}
    for i, t in enumerate(transcripts):
        by_prompt.setdefault(t.id, i)
    first = list(by_prompt.values())[:FIRST]
    others = [i for i in range(len(transcripts)) if i not in first]
    others.sort(key=lambda i: -worst_of(transcripts[i]))
    return first + others[:MINDED]


def worst_of(transcript: Transcript) -> float:
    """The largest disagreement among its tokens; minus infinity where none is known."""
    return max((d for t in transcript.tokens if not math.isnan(d := t.disagreement)), default=-math.inf)


def make_cells(
    recorded: Sequence[Sequence[int]], steps: Sequence[int], read: Callable[[int, int], Sequence[Transcript]]
) -> list[Cell]:
    """Cells of every step and run; `read(run, step)` gives the transcripts. All share `TOKENS` evenly."""
    places = [(run, step) for step in steps for run in range(len(recorded))]
    there = sum(step in recorded[run] for run, step in places)
    room = TOKENS // max(1, there)
    return [
        fit(run, step, read(run, step), room) if step in recorded[run] else Cell(run, step, (), (), 0, 0)
        for run, step in places
    ]


def fit(run: int, step: int, transcripts: Sequence[Transcript], room: int) -> Cell:
    """As many completions as have room; of the first one, which is always shown, its end is left out where it must."""
    shown: list[tuple[int, Transcript]] = []
    used = cut = 0
    for i in choose_samples(transcripts):
        t = transcripts[i]
        if not shown and len(t.tokens) > room:
            cut = len(t.tokens) - room
            t = replace(t, tokens=t.tokens[:room])
        if used + len(t.tokens) <= room:
            shown.append((i + 1, t))
            used += len(t.tokens)
    return Cell(run, step, tuple(t for _, t in shown), tuple(i for i, _ in shown), len(transcripts), cut)


def worst_tokens(cells: Sequence[Cell], most: int = WORST) -> list[Worst]:
    """The shown tokens that the teacher finds the least likely beside the student, worst first, from `LEAST` on."""
    found = [
        (token.disagreement, cell, i, place)
        for cell in cells
        for i, t in enumerate(cell.samples)
        for place, token in enumerate(t.tokens)
        if token.disagreement >= LEAST  # not where it is NaN
    ]
    found.sort(key=lambda item: -item[0])  # stable: equal ones stay in the page's order
    return [_worst(cell, i, place) for _, cell, i, place in found[:most]]


def _worst(cell: Cell, sample: int, place: int) -> Worst:
    tokens = cell.samples[sample].tokens
    before = "".join(t.text for t in tokens[max(0, place - AROUND) : place])
    return Worst(
        cell.run,
        cell.step,
        sample,
        cell.numbers[sample],
        place,
        tokens[place],
        ("…" if place > AROUND else "") + before,
    )
