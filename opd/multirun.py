"""`opd train --multirun`: every combination of a sweep, one after the other, each in its own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

from opd.config import load, sweep
from opd.types import UserError


def run_all(named: Mapping[str, str], overrides: Sequence[str], arguments: Sequence[str]) -> int:
    """Check all combinations, then run them; returns the number that failed.

    A process each: an engine that was started and closed leaves memory and thread settings behind, and a run that
    fails must not take the others with it.
    """
    if "run" in named:
        raise UserError(f"run={named['run']}: the runs of --multirun cannot share one folder; leave it out")
    if "conf" not in named:
        raise UserError("conf: must be given, as in conf=quickstart")
    combinations = sweep(overrides)
    for combination in combinations:
        load(named["conf"], combination)
    flags = [a for a in arguments if a.startswith("-") and a not in {"--multirun", "-m"}]
    failed = 0
    for i, combination in enumerate(combinations, 1):
        print(f"[{i}/{len(combinations)}] opd train conf={named['conf']} {' '.join(combination)}", flush=True)
        name = "-".join(c.split("=")[-1] for c in combination).replace("/", "_")
        command = [sys.executable, "-m", "opd.cli", "train", f"conf={named['conf']}", *combination]
        config = load(named["conf"], combination).config
        failed += subprocess.run([*command, f"name={config.name}-{i}-{name}", *flags], check=False).returncode != 0
    return failed
