"""Do harm of some kind to tiny runs, and print what was tried and what has held."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

from tests.faults import checkpoints, disk, fuzz, inputs, kills, memory, servers, signals

KINDS: dict[str, Callable[[Sequence[str]], int]] = {
    "kills": partial(kills.main, "kills"),
    "ranks": partial(kills.main, "ranks"),
    "apart": partial(kills.main, "apart"),
    "fleet": partial(kills.main, "fleet"),
    "signals": signals.main,
    "checkpoints": checkpoints.main,
    "disk": disk.main,
    "servers": servers.main,
    "inputs": inputs.main,
    "memory": memory.main,
    "fuzz": fuzz.main,
}

if __name__ == "__main__":
    kind, *arguments = sys.argv[1:] or [""]
    if kind not in KINDS:
        sys.exit(f"usage: python -m tests.faults {{{','.join(KINDS)}}} [--help]")
    sys.exit(KINDS[kind](arguments))
