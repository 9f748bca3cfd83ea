"""Predicted seconds of a step against measured ones, on one core of this machine: `python -m tests.plan.clock`.

Seconds are those of the process, which has one thread: what else runs on the machine does not count, as it would by the
clock. The card is this machine, measured in the same process right after the run; lengths are those of the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from opd.config.compose import load
from opd.plan.cards import Card
from opd.plan.forecast import forecast
from opd.plan.layout import Layout
from opd.plan.work import Lengths
from opd.run.metrics import read_metrics

PHASES = ("generate", "score", "update", "push")
ALONE = ("eval.every=0", "eval.size=2", "threads=1", "log.rollouts_every=0")
RUN = """
import json, sys, time
time.perf_counter = time.process_time
from opd.run import startup
startup.prepare()
from opd import cli
try:
    cli.main(sys.argv[2:])
except SystemExit as e:
    assert not e.code, e.code
from opd.plan.here import processor
json.dump(vars(processor(1)), open(sys.argv[1], "w"))
"""


def measured(conf: str, settings: tuple[str, ...], folder: Path) -> tuple[Card, list[dict[str, float]]]:
    """Run a few steps in a process of its own; the card, and the rows of the metrics from the second step on."""
    run, card = folder / "run", folder / "card.json"
    command = [sys.executable, "-c", RUN, str(card), "train", f"conf={conf}", f"run={run}", "-q", *ALONE, *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
    return Card(**json.loads(card.read_text())), read_metrics(run / "metrics.jsonl")[1:]


def compared(conf: str, settings: tuple[str, ...]) -> Mapping[str, tuple[float, float]]:
    """Predicted and measured seconds of each phase, and of the step."""
    with TemporaryDirectory() as name:
        card, rows = measured(conf, settings, Path(name))
    first, *rest = rows  # compilation and caches: the first step is another one
    count = sum(row["rollout/count"] for row in rest)
    prompt = (rest[-1]["cost/update_prompt_tokens"] - first["cost/update_prompt_tokens"]) / count
    lengths = (prompt, median(row["rollout/length"] for row in rest))
    config = load(conf, settings).config
    found = forecast(config, card, Layout(), Lengths.of(config, *lengths))
    seconds = {p: (found.phases[p], median(row[f"perf/{p}_s"] for row in rest)) for p in PHASES}
    return seconds | {"step": (found.step, sum(real for _, real in seconds.values()))}


def shown(conf: str, seconds: Mapping[str, tuple[float, float]]) -> str:
    """One line a config: predicted, measured, and their ratio, by phase."""
    return f"{conf}: " + ", ".join(f"{p} {a:.3f}/{b:.3f} = {a / b:.2f}" for p, (a, b) in seconds.items())


if __name__ == "__main__":
    for name in sys.argv[1:] or ("quickstart", "smollm2"):
        conf, *given = name.split(",")
        print(shown(name, compared(conf, ("steps=4", *given))), flush=True)
