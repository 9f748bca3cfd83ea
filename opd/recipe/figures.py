"""The last figures of runs, where a recipe's own measures do not apply: at full size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from opd.metrics import read_metrics
from opd.recipe.result import Result, Table
from opd.recipe.stage import Stage, Train
from opd.recipe.work import Work

SHOWN = {"step": "step", "eval/accuracy": "accuracy", "eval/kl": "reverse KL, nats/token", "cost/flops": "FLOPs"}


def figures(work: Work, stages: Sequence[Stage], published: str) -> Result:
    """A table of the last evaluation of every run, under what was published for it."""
    rows = []
    for stage in (s for s in stages if isinstance(s, Train)):
        last = [row for row in read_metrics(work.run(stage.name).metrics) if "eval/count" in row][-1]
        values = (last.get(name, math.nan) for name in SHOWN)
        rows.append((stage.name, *("" if math.isnan(v) else v for v in values)))
    return Result((Table(f"Published: {published}", ("run", *SHOWN.values()), tuple(rows)),), ())
