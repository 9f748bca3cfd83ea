"""Send a run signals, close its terminal, or stop reading what it prints, at random instants from first to last."""

from __future__ import annotations

import argparse
import os
import pty
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from opd.run import checkpoint
from tests.faults.run import Started, opd, steps, talking
from tests.tiny import save_config, save_model

KINDS = ("SIGINT", "SIGTERM", "SIGHUP", "terminal", "reader")
LIMIT = 120.0
START = 0.15
"""Seconds in which Python itself starts."""


Harm = Callable[[Started], None]


def sender(number: signal.Signals) -> Harm:
    """What sends a signal."""
    return lambda started: started.process.send_signal(number)


def begin(kind: str, arguments: Sequence[str]) -> tuple[Started, Harm]:
    """A run, and what does harm to it."""
    if kind.startswith("SIG"):
        return opd("train", *arguments), sender(signal.Signals[kind])
    ours, theirs = pty.openpty() if kind == "terminal" else os.pipe()
    started = talking("train", *arguments, out=theirs)
    os.close(theirs)
    threading.Thread(target=drain, args=(ours,), daemon=True).start()
    return started, lambda started: os.close(ours)


def drain(descriptor: int) -> None:
    """Read what is printed, so that nobody waits."""
    with suppress(OSError):
        while os.read(descriptor, 4096):
            pass


def attempt(config: Path, run: Path, kind: str, after: float, *settings: str) -> tuple[str, list[str]]:
    """Do harm after some seconds; where the run was, and what has not held."""
    started, harm = begin(kind, [f"conf={config}", f"run={run}", *settings])
    try:
        time.sleep(after)
        if started.process.poll() is not None:
            return "ended before", []
        harm(started)
        sent = time.monotonic()
        code, err = started.end(LIMIT)
        took = time.monotonic() - sent
        left = started.left
    finally:
        started.clear()
    done = steps(run)
    where = f"{'setup' if done < 0 else f'step {done}'}, {after:.2f} s, took {took:.1f} s"
    wrong = []
    number = signal.Signals[kind] if kind.startswith("SIG") else signal.SIGHUP
    if code not in (128 + number, -number, 0, *([141] if kind == "reader" else ())):
        wrong.append(f"exit code {code}")
    if len(err) > 1 or any("Traceback" in line or "internal" in line for line in err):
        wrong.append(f"it said {err}")
    if left:
        wrong.append(f"{len(left)} processes are left")
    if done < 0 and run.exists():
        wrong.append(f"it has left {sorted(p.name for p in run.iterdir())}")
    if done > 0 and code == 128 + number and not checkpoint.checkpoints(run / "checkpoints"):
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
            for kind in KINDS:
                after = rng.choice([rng.uniform(START, 1.5), rng.uniform(START, given.longest)])
                where, wrong = attempt(config, place / f"{i}-{kind}", kind, after, *settings)
                tried, bad = tried + 1, bad + bool(wrong)
                print(f"{kind:8} {where}: {'; '.join(wrong) or 'passed'}", flush=True)
    print(f"signals: {tried} tried, {tried - bad} passed")
    return int(bad > 0)
