"""Kill each process of a tiny real run at random instants; print what was tried and what has held.

`kills`: of one process, at any instant, also while it starts and while a checkpoint is written; the run that goes on,
or that is started again where there is no checkpoint yet, ends with the weights of one that was left alone, to the bit.
`ranks`: after each rank, and the launcher, no process is left; the exit code is 1, and one line names who died; the
checkpoints are whole; the run that goes on ends with the weights of one that was left alone, to the bit. `apart`: the
same of the learner; without an engine the run itself goes on, to the same weights. `fleet`: both, of several ranks
beside engines.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import torch

from opd.run import checkpoint
from tests.faults.run import STEPS, Started, same, steps, train, until, weights
from tests.faults.victims import Layout, Victim, apart, fleet, on_ranks, single
from tests.tiny import save_config, save_model

KINDS = {"kills": single, "ranks": on_ranks, "apart": apart, "fleet": fleet}
LIMIT = 300.0
"""Seconds that a run of seconds may take on a busy machine."""


@dataclass
class Row:
    """What has come of killing one kind of process."""

    victim: Victim
    tried: int = 0
    passed: int = 0
    resumed: int = 0
    writing: int = 0
    """Of which a checkpoint was being written."""
    anew: int = 0
    wrong: list[str] = field(default_factory=list)


def main(kind: str, arguments: Sequence[str]) -> int:
    """Print a table; returns 1 where something has not held."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.faults {kind}", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="that each of them is killed")
    parser.add_argument("--count", type=int, default=2, help="of ranks, of engines, or of each")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    layout = KINDS[kind](given.count, LIMIT)
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        student = save_model(place / "student", "qwen3", seed=1, tied=True)
        teacher = save_model(place / "teacher", "llama", seed=2, tied=False, hidden=96)
        config = save_config(place / "tiny.yaml", student, teacher)
        begun = time.monotonic()
        code, err = train(config, place / "whole", *layout.settings, seconds=layout.seconds, start=layout.start).end(
            LIMIT
        )
        assert code == 0, err
        start, whole = time.monotonic() - begun, weights(place / "whole")
        rows = [Row(victim) for victim in layout.victims]
        for i in range(given.times):
            for k, row in enumerate(rows):
                tries = (attempt(config, place / f"{i}-{k}-{n}", layout, start, rng, whole, row) for n in count())
                wrong = next(found for found in tries if found is not None)
                row.tried += 1
                row.passed += not wrong
                row.wrong += wrong
                said = "; ".join(wrong) or "passed"
                print(f"{i + 1}/{given.times} {row.victim.name}: {said}", file=sys.stderr, flush=True)
    print(f"{'killed':15} {'tried':>6} {'passed':>7} {'while saving':>13} {'gone on with':>13} {'started anew':>13}")
    for row in rows:
        print(f"{row.victim.name:15} {row.tried:6} {row.passed:7} {row.writing:13} {row.resumed:13} {row.anew:13}")
    return int(any(row.wrong for row in rows))


def attempt(
    config: Path, run: Path, layout: Layout, start: float, rng: random.Random, whole: dict[str, torch.Tensor], row: Row
) -> list[str] | None:
    """Kill a process once; what has not held, None where it had ended before."""
    started = train(config, run, *layout.settings, seconds=layout.seconds, start=layout.start)
    try:
        if not strike(started, run, row.victim, start, layout.seconds, rng):
            return None
        wrong = list(row.victim.aftermath(started, run))
    finally:
        started.clear()
    row.writing += any(drafts(run))
    newest, damaged = checkpoint.latest(run / "checkpoints")
    wrong += map(str, damaged)
    code, err = 0, []
    if newest is None:
        row.anew += 1
        begun = (run / "config.yaml").exists()
        run = run.with_name(f"{run.name}-anew") if begun else run
        code, err = train(config, run, *layout.settings, seconds=0, start=layout.start).end(LIMIT)
    else:
        row.resumed += newest.step < STEPS
        code, err = layout.start("train", "--resume", f"run={run}", "teacher.seconds=0").end(LIMIT)
    if code:
        wrong.append(f"it could not go on: {err}")
    elif not same(weights(run), whole):
        wrong.append("its weights are others than those of a run that was left alone")
    if left := [p.name for p in run.rglob(".*")]:
        wrong.append(f"half-written is left: {left}")
    return wrong


def drafts(run: Path) -> Iterator[Path]:
    """Checkpoints that are being written, or were when somebody killed the run."""
    return (run / "checkpoints").glob(".step_*.writing")


def strike(started: Started, run: Path, victim: Victim, start: float, seconds: float, rng: random.Random) -> bool:
    """Kill at a random instant: while everything starts, in a step or after it, or while a checkpoint is written."""
    if (which := rng.random()) < 0.25:
        time.sleep(rng.uniform(0, start / 2))
    elif which < 0.5:
        step = 2 * rng.randrange(STEPS // 2)
        until(lambda: steps(run) > step or started.process.poll() is not None, LIMIT)
        until(lambda: any(drafts(run)) or started.process.poll() is not None, LIMIT, every=0.001)
        time.sleep(rng.uniform(0, 0.05))
    else:
        step = rng.randrange(STEPS - 1)
        until(lambda: steps(run) >= step or started.process.poll() is not None, LIMIT)
        time.sleep(rng.uniform(0, 0.1 + seconds))
    until(lambda: victim.find(started) != 0 or started.process.poll() is not None, 30)
    process = victim.find(started)
    if process and started.process.poll() is None:
        os.kill(process, signal.SIGKILL)
        return True
    return False
