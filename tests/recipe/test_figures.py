"""What is shown of a recipe at full size: the last figures of its runs and of its evaluations."""

from __future__ import annotations

import json
import math
from pathlib import Path

from opd.recipe import Evaluate, Export, Train, Work
from opd.recipe.figures import figures

STAGES = (Train("run", ()), Train("unseen", ()), Export("out", "run"), Evaluate("aime", (), after=("run",)))


def test_runs_and_evaluations_are_shown_and_what_was_not_evaluated_is_left_out(tmp_path: Path) -> None:
    work = Work(tmp_path)
    rows = [{"step": 0, "eval/accuracy": 0.1}, {"step": 1, "eval/accuracy": 0.5, "cost/flops": 7.0}, {"step": 2}]
    for name, found in {"run": rows, "unseen": [{"step": 1, "optim/loss": 1.0}]}.items():
        work.run(name).path.mkdir()
        work.run(name).metrics.write_text("".join(json.dumps(r) + "\n" for r in found))
    (tmp_path / "aime.json").write_text(json.dumps({"student before": {"eval/accuracy": 0.6, "eval/kl": math.nan}}))
    (table,) = figures(work, STAGES, "70% of AIME'24").tables
    assert table.title == "Published: 70% of AIME'24"
    assert table.rows == (("run", 1.0, 0.5, "", 7.0), ("aime: student before", "", 0.6, "", ""))
