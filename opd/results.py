"""What a run has found: its evaluations, and what it cost, as it wrote them down; read without a model."""

from __future__ import annotations

import json
from typing import Any

from opd.metrics import read_metrics
from opd.runs import Run

FINAL = ("final_before", "final_after", "final_teacher")
"""Files of `opd eval`, in the order of its table."""


def evaluations(run: Run) -> dict[str, dict[str, Any]]:
    """What `opd eval` found last, by row; else what the training run itself measured first and last."""
    files = [run.evals / f"{name}.json" for name in FINAL if (run.evals / f"{name}.json").is_file()]
    if not files:
        steps = sorted(run.evals.glob("student_step_*.json"))
        files = [*steps[:1], *steps[1:][-1:]]
    found = [json.loads(file.read_text()) for file in files]
    return {e["name"]: e for e in found}


def costs(run: Run, step: int | None = None) -> dict[str, float]:
    """What the run had cost after `step`, or has cost by now: its `cost/...` metrics; empty where there are none."""
    rows = [row for row in read_metrics(run.metrics) if step is None or row["step"] == step]
    return {name: value for name, value in (rows[-1] if rows else {}).items() if name.startswith("cost/")}
