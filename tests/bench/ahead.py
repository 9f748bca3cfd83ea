"""Steps of the quickstart: engine and learner in turn in one process, or apart with the engine a step ahead."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from opd.api import compose
from opd.console import make_console
from opd.devices.team import Solo
from opd.devices.threads import threads
from opd.loop import update
from opd.parts import drafts, make_models, start_parts
from opd.run.directory import RunFolder

STEPS = 16
"""Of a turn; it ends with an idle engine, so that none works in another variant's turn."""


def measure_ahead(spec: dict[str, Any]) -> tuple[Callable[[], dict[str, float]], Callable[[], None]]:
    """What takes a turn of steps, and what closes all; one thread in each process."""
    cfg = compose("quickstart", "steps=100000", "threads=1", *spec["overrides"]).config
    stack = ExitStack()
    console = stack.enter_context(make_console(quiet=True))
    stack.enter_context(threads(cfg.threads))
    make_models(cfg, console, Solo())
    parts = start_parts(cfg, stack, console, None, Solo())
    parts.engine.load_weights(parts.student.weights(), 0)
    writing, done = drafts(cfg, parts, stack, console, 0, None), 0

    def measure() -> dict[str, float]:
        nonlocal done
        begun, tokens = time.perf_counter(), 0
        for step in range(done, done := done + STEPS):
            scored = parts.judges.verify(parts.judges.score(writing.take(step), 0))
            tokens += sum(len(s.rollout.tokens) for s in scored)
            update(cfg, parts, scored, step, RunFolder(Path("nowhere")), writing.stale)
            writing.push(parts.student.weights(), step + 1)
        writing.settle()
        return {"milliseconds": (time.perf_counter() - begun) / STEPS * 1000, "tokens": tokens}

    return measure, stack.close
