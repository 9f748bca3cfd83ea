"""Send a run signals at random instants, from its first one to its last."""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from opd.run import checkpoint
from tests.faults.run import opd, steps
from tests.tiny import save_config, save_model

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LIMIT = 120.0


def attempt(config: Path, run: Path, number: signal.Signals, after: float, *settings: str) -> tuple[str, list[str]]:
    """Send a signal after some seconds; where the run was, and what has not held."""
    started = opd("train", f"conf={config}", f"run={run}", *settings)
    try:
        time.sleep(after)
        if started.process.poll() is not None:
            return "ended before", []
        started.process.send_signal(number)
        sent = time.monotonic()
        code, err = started.end(LIMIT)
        took = time.monotonic() - sent
        left = started.left
    finally:
        started.clear()
    done = steps(run)
    where = f"{'setup' if done < 0 else f'step {done}'}, {after:.2f} s, took {took:.1f} s"
    wrong = []
    if code not in (128 + number, -number, 0):
        wrong.append(f"exit code {code}")
    if len(err) > 1 or any("Traceback" in line or "internal" in line for line in err):
        wrong.append(f"it said {err}")
    if left:
        wrong.append(f"{len(left)} processes are left")
    if done < 0 and run.exists():
        wrong.append(f"it has left {sorted(p.name for p in run.iterdir())}")
    if done >= 0 and code == 128 + number and not checkpoint.checkpoints(run / "checkpoints"):
        wrong.append("nothing was saved")
    return where, wrong


def main(arguments: Sequence[str]) -> int:
    """Print a line for each; returns 1 where something has not held. Settings of the run may be among the arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults signals", description=__doc__)
    parser.add_argument("--times", type=int, default=14, help="that each of them is sent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=25, help="seconds until it is sent, at most")
    given, settings = parser.parse_known_args(arguments)
    rng = random.Random(given.seed)
    tried = bad = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        student = save_model(place / "student", "qwen3", seed=1, tied=True)
        teacher = save_model(place / "teacher", "llama", seed=2, tied=False, hidden=96)
        config = save_config(place / "tiny.yaml", student, teacher)
        for i in range(given.times):
            for number in SIGNALS:
                after = rng.choice([rng.uniform(0, 1.5), rng.uniform(0, given.longest)])
                where, wrong = attempt(config, place / f"{i}-{number}", number, after, *settings)
                tried, bad = tried + 1, bad + bool(wrong)
                print(f"{number.name:8} {where}: {'; '.join(wrong) or 'passed'}", flush=True)
    print(f"signals: {tried} tried, {tried - bad} passed")
    return int(bad > 0)
