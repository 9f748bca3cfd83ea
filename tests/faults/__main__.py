"""Kill each rank, and the launcher, of a tiny real run at random instants; print what was tried and what has held.

After each: no process is left; the exit code is 1, and one line names who died; the checkpoints are whole; the run that
goes on ends with the weights of one that was left alone, to the bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from opd.run import checkpoint
from tests.faults.run import STEPS, Started, opd, same, steps, train, until, weights
from tests.tiny import save_config, save_model

LIMIT = 300.0
"""Seconds that a run of seconds may take on a busy machine."""


@dataclass
class Row:
    """What has come of killing one kind of process."""

    who: str
    tried: int = 0
    passed: int = 0
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """Print a table; returns 1 where something has not held."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("what", choices=["ranks"])
    parser.add_argument("--times", type=int, default=20, help="of each: every rank, and the launcher")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        student = save_model(place / "student", "qwen3", seed=1, tied=True)
        teacher = save_model(place / "teacher", "llama", seed=2, tied=False, hidden=96)
        config = save_config(place / "tiny.yaml", student, teacher)
        begun = time.monotonic()
        code, err = train(config, place / "whole", given.ranks, seconds=0).end(LIMIT)
        assert code == 0, err
        start, whole = time.monotonic() - begun, weights(place / "whole")
        rows = [Row(f"rank {rank}") for rank in range(given.ranks)] + [Row("launcher")]
        for i in range(given.times):
            for rank, row in enumerate(rows):
                run = place / f"{i}-{rank}"
                victim = None if row.who == "launcher" else rank
                wrong = attempt(config, run, given.ranks, victim, start, rng, whole, row)
                row.tried += 1
                row.passed += not wrong
                row.wrong += wrong
                print(f"{i + 1}/{given.times} {row.who}: {'; '.join(wrong) or 'passed'}", file=sys.stderr, flush=True)
    print(f"{'killed':10} {'tried':>6} {'passed':>7} {'gone on with':>13}")
    for row in rows:
        print(f"{row.who:10} {row.tried:6} {row.passed:7} {row.resumed:13}")
    return int(any(row.wrong for row in rows))


def attempt(
    config: Path, run: Path, ranks: int, victim: int | None, start: float, rng: random.Random,
    whole: dict[str, torch.Tensor], row: Row,
) -> list[str]:  # fmt: skip
    """Kill `victim` (None: the launcher) once; what has not held."""
    started = train(config, run, ranks)
    try:
        if not strike(started, run, victim, start, rng):
            return ["it had ended before it was killed"]
        wrong = list(aftermath(started, run, ranks, victim))
    finally:
        started.clear()
    newest, damaged = checkpoint.latest(run / "checkpoints")
    wrong += damaged
    if newest is not None:
        row.resumed += 1
        again = opd("train", "--resume", f"run={run}", "teacher.seconds=0")
        code, err = again.end(LIMIT)
        if code:
            wrong.append(f"it could not go on: {err}")
        elif not same(weights(run), whole):
            wrong.append("its weights are others than those of a run that was left alone")
    return wrong


def strike(started: Started, run: Path, victim: int | None, start: float, rng: random.Random) -> bool:
    """Kill at a random instant: one in four while everything starts, else in a step, or what follows it."""
    if rng.random() < 0.25:
        time.sleep(rng.uniform(0.2, start / 2))
    else:
        step = rng.randrange(STEPS - 1)
        until(lambda: steps(run) >= step or started.process.poll() is not None, LIMIT)
        time.sleep(rng.uniform(0, 0.4))
    if victim is None:
        started.process.kill()
        return started.process.poll() in (None, -signal.SIGKILL)
    until(lambda: started.rank(victim) != 0 or started.process.poll() is not None, 30)
    process = started.rank(victim)
    if process:
        os.kill(process, signal.SIGKILL)
    return bool(process)


def aftermath(started: Started, run: Path, ranks: int, victim: int | None) -> Iterator[str]:
    """What is not as it should be after a kill."""
    begun = time.monotonic()
    code, err = started.end(60)
    if victim is None:
        if not until(lambda: not started.left, 15):
            yield f"{len(started.left)} processes outlived the launcher"
        return
    if started.left:
        yield f"{len(started.left)} processes are left"
    if code != 1:
        yield f"exit code {code}"
    on = f"opd train --resume run={run}" if any((run / "checkpoints").glob("step_*")) else "no checkpoint"
    who = f"opd: rank {victim} of {ranks} was killed by SIGKILL; "
    if len(err) != 1 or not err[0].startswith(who) or on not in err[0]:
        yield f"stderr: {err}"
    if time.monotonic() - begun > 30:
        yield "it took more than half a minute"


if __name__ == "__main__":
    sys.exit(main())
