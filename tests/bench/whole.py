"""Steps of whole runs: in one process, on ranks, or with the engine apart and a step ahead; one thread each."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from contextlib import ExitStack
from operator import sub
from typing import Any

import torch

from opd import parts
from opd.api import compose
from opd.console import make_console
from opd.devices.team import Solo, Team
from opd.devices.threads import threads
from opd.loop import update
from opd.parts import drafts, make_models, start_parts
from opd.run.ledger import Ledger
from tests.ranks import Processes

Measure = Callable[[], dict[str, float]]
PHASES = ("generate", "score", "update")


class Whole:
    """A run that takes some steps whenever it is asked."""

    def __init__(self, team: Team, conf: str, overrides: list[str]) -> None:
        self.cfg = cfg = compose(conf, "steps=100000", "threads=1", *overrides).config
        self.stack, self.done = ExitStack(), 0
        console = self.stack.enter_context(make_console(quiet=True))
        self.stack.enter_context(threads(cfg.threads))
        make_models(cfg, console, team)
        self.parts = start_parts(cfg, self.stack, console, None, team)
        self.parts.engine.load_weights(self.parts.student.weights(), 0)
        self.writing = drafts(cfg, self.parts, self.stack, console, 0, None)

    def take(self, steps: int) -> dict[str, float]:
        """Milliseconds of a step, those of judging, and tokens trained; no engine is at work afterwards."""
        parts, writing = self.parts, self.writing
        begun, tokens, waited = time.perf_counter(), 0.0, 0.0
        for step in range(self.done, self.done + steps):
            rollouts = writing.take(step)
            written = time.perf_counter()
            scored = parts.judges.verify(parts.judges.score(rollouts, 0))
            waited += time.perf_counter() - written
            metrics = update(self.cfg, parts, scored, step, print, writing.stale)
            tokens += metrics["optim/trained_tokens"]
            writing.push(parts.student.weights(), step + 1)
        writing.settle()
        self.done += steps
        seconds = time.perf_counter() - begun
        ctypes.CDLL(None).malloc_trim(0)  # others are measured next
        times = {"milliseconds": seconds / steps * 1000, "judging": waited / steps * 1000, "seconds": seconds}
        return times | {"tokens": tokens}


def products(size: int = 1024, tries: int = 5) -> float:
    """FLOP/s of a product of float32 matrices at its best."""
    a, b = torch.rand(size, size), torch.rand(size, size)

    def seconds() -> float:
        begun = time.perf_counter()
        torch.mm(a, b)
        return time.perf_counter() - begun

    return 2 * size**3 / min(seconds() for _ in range(tries))


def measure_floors(spec: dict[str, Any]) -> tuple[Measure, Callable[[], None]]:
    """Seconds of each phase of a step of `conf` with `overrides`, and those that its operations take at the peak."""
    run = Whole(Solo(), spec["conf"], list(spec["overrides"]))
    parts, ledger = run.parts, Ledger(run.cfg, run.parts.student, run.parts.judges)

    def measure() -> dict[str, float]:
        peak, step, at = products(), run.done, [time.perf_counter()]
        rollouts = run.writing.take(step)
        at.append(time.perf_counter())
        scored = parts.judges.verify(parts.judges.score(rollouts, 0))
        at.append(time.perf_counter())
        update(run.cfg, parts, scored, step, print, run.writing.stale)
        at.append(time.perf_counter())
        run.writing.push(parts.student.weights(), step + 1)
        at.append(time.perf_counter())
        run.done += 1
        cost = ledger.step(scored)
        own = {phase: [v for k, v in cost.items() if k.startswith(f"cost/{phase}_flops")] for phase in PHASES}
        floors = {phase: sum(flops) / peak for phase, flops in own.items()}
        seconds = dict(zip(PHASES, map(sub, at[1:], at), strict=False))
        whole = {"step": at[-1] - at[0], "step_floor": sum(floors.values()), "peak": peak}
        return seconds | {f"{phase}_floor": floor for phase, floor in floors.items()} | whole

    return measure, run.stack.close


_here: list[Whole] = []
"""The run that a rank is in, which stays between two calls."""


def begin(team: Team, conf: str, overrides: list[str]) -> None:
    """Start a rank's part."""
    _here[:] = [Whole(team, conf, overrides)]


def begin_alone(team: Team, conf: str, overrides: list[str]) -> None:
    """Start a run of this process's own beside the others'."""
    begin(Solo(), conf, overrides)


def take(team: Team, steps: int) -> dict[str, float]:
    """Take steps with it."""
    return _here[0].take(steps)


def measure_whole(spec: dict[str, Any]) -> tuple[Measure, Callable[[], None]]:
    """What takes `steps` steps of `conf` with `overrides`, on `ranks` where there are some, and what closes all.

    `shard`: as in devices.shard; 0: the processes do not know of each other, and each has a run of its own.
    """
    given = spec["conf"], list(spec["overrides"])
    if spec.get("late"):
        parts.early = lambda *given: None  # a teacher elsewhere is asked when all is written
    if not spec["ranks"]:
        run = Whole(Solo(), *given)
        return lambda: run.take(spec["steps"]), run.stack.close
    ranks = Processes(spec["ranks"], spec["shard"] or None)
    ranks(begin if spec["shard"] else begin_alone, *given)

    def measure() -> dict[str, float]:
        found = ranks(take, spec["steps"])
        return found[0] if spec["shard"] else found[0] | {
            "tokens": sum(f["tokens"] for f in found), "seconds": max(f["seconds"] for f in found)
        }  # fmt: skip

    return measure, ranks.close
