"""What a run has found: its evaluations, and what it cost, as it wrote them down; read without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opd.run.directory import RunFolder
from opd.run.metrics import read_metrics
from opd.types import UserError

FINAL = ("final_before", "final_after", "final_teacher")
"""Files of `opd eval`, in the order of its table."""
_DRAWN: dict[str, Callable[[Any], float]] = {"temperature": float, "max_tokens": int, "n": int}


def evaluations(run: RunFolder) -> dict[str, dict[str, Any]]:
    """What `opd eval` found last, by row, and its `file`; else what the training run itself measured first and last.

    Raises:
        UserError: a file holds something else.
    """
    files = [run.evals / f"{name}.json" for name in FINAL if (run.evals / f"{name}.json").is_file()]
    if not files:
        steps = sorted(run.evals.glob("student_step_*.json"))
        files = [*steps[:1], *steps[1:][-1:]]
    return {e["name"]: e | {"file": f} for f in files for e in [read_evaluation(f)]}


def read_evaluation(file: Path) -> dict[str, Any]:
    """Read one row: `name`, `metrics` and `sampling`; figures that are null are left out."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        drawn = {name: kind(found["sampling"][name]) for name, kind in _DRAWN.items()}
        metrics = {str(name): float(value) for name, value in found["metrics"].items() if value is not None}
        return {"name": str(found["name"]), "metrics": metrics, "sampling": found["sampling"] | drawn}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{file}: not the figures of an evaluation, which has a name, metrics that are numbers, and sampling with "
            f"{', '.join(_DRAWN)}; delete it, or evaluate again"
        ) from error


def costs(run: RunFolder, step: int | None = None) -> dict[str, float]:
    """What the run had cost after `step`, or has cost by now: its `cost/...` metrics; empty where there are none."""
    written = read_metrics(run.metrics) if run.metrics.exists() else []
    rows = [row for row in written if step is None or row["step"] == step]
    return {name: value for name, value in (rows[-1] if rows else {}).items() if name.startswith("cost/")}
