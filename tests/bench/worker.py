"""A process that measures one variant: it gets ready, then measures once for every line that it reads.

Run by `lockstep`, so that variants take turns on a noisy machine, and that none sees another's memory.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Read the variant from the first argument; write one JSON line when ready and one per measurement."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    if "cores" in spec:
        os.sched_setaffinity(0, spec["cores"])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the results
    from tests.bench import engines, losses, prompts, steps

    close = None
    if spec["section"] == "rollouts":
        measure, close = engines.measure_rollouts(spec)
    elif spec["section"] == "whole":
        from tests.bench import whole

        measure, close = whole.measure_whole(spec)
    elif spec["section"] == "floors":
        from tests.bench import whole

        measure, close = whole.measure_floors(spec)
    elif spec["section"] == "peer":
        from tests.bench import peer

        measure, close = peer.measure_peer(spec)
    else:
        sections = {"step": steps.measure_step, "layout": steps.measure_layout, "teacher": steps.measure_teacher}
        sections |= {"loss": losses.measure_loss, "prompts": prompts.measure_prompts}
        measure = sections[spec["section"]](spec)
    print("{}", file=out, flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), file=out, flush=True)
    if close is not None:
        close()


if __name__ == "__main__":
    main()
