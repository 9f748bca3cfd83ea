"""The last figures of runs and evaluations, where a recipe's own measures do not apply: at full size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from opd.recipe.result import Result, Table
from opd.recipe.stage import Evaluate, Stage, Train
from opd.recipe.work import Work
from opd.run.metrics import read_metrics

SHOWN = {"step": "step", "eval/accuracy": "accuracy", "eval/kl": "reverse KL, nats/token", "cost/flops": "FLOPs"}
Found = tuple[str, Mapping[str, float]]


def figures(work: Work, stages: Sequence[Stage], published: str) -> Result:
    """A table of the last evaluation of every run and of every row of `opd eval`, under what was published."""
    rows = []
    for name, values in (found for stage in stages for found in evaluations(work, stage)):
        shown = (values.get(key, math.nan) for key in SHOWN)
        rows.append((name, *("" if math.isnan(v) else v for v in shown)))
    return Result((Table(f"Published: {published}", ("of", *SHOWN.values()), tuple(rows)),), ())


def evaluations(work: Work, stage: Stage) -> Iterator[Found]:
    """What a stage was found to be; nothing for one that was not evaluated."""
    match stage:
        case Train():
            run = [r for r in read_metrics(work.run(stage.name).metrics) if any(key.startswith("eval/") for key in r)]
            yield from ((stage.name, last) for last in run[-1:])
        case Evaluate():
            yield from ((f"{stage.name}: {row}", values) for row, values in work.json(stage.name).items())
