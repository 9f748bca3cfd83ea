"""What a run has found: its evaluations, and what it cost, as it wrote them down; read without a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from opd.disk import read_json
from opd.run.directory import RunFolder
from opd.run.metrics import read_metrics
from opd.types import UserError

FINAL = ("final_before", "final_after", "final_teacher")
"""Files of `opd eval`, in the order of its table."""
_DRAWN: dict[str, Callable[[Any], float]] = {"temperature": float, "max_tokens": int, "n": int}


@dataclass(frozen=True)
class Setting:
    """How an evaluation was made: figures of two can be compared where it is the same."""

    prompts: str
    """Their digest; empty: of an evaluation that did not write one."""
    count: int
    """Of the prompts, as far as it is known."""
    n: int
    """Samples of each."""
    temperature: float
    max_tokens: int
    top_p: float
    top_k: int
    min_p: float

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> Setting:
        """That of `read_evaluation`."""
        drawn, asked = evaluation["sampling"], evaluation["prompts"]
        cut = (float(drawn.get(name, full)) for name, full in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)))
        top_p, top_k, min_p = cut
        count = asked.get("count", evaluation["metrics"].get("eval/count", 0.0) // max(1, drawn["n"]))
        return cls(
            str(asked.get("digest", "")), int(count), drawn["n"], drawn["temperature"], drawn["max_tokens"], top_p,
            int(top_k), min_p,
        )  # fmt: skip

    @property
    def words(self) -> str:
        """What a table says of it beside temperature and longest completion."""
        counted = f"{self.count} prompts, {self.n} sample{'s' if self.n > 1 else ''} each" if self.prompts else ""
        cut = {"top_p": (self.top_p, 1.0), "top_k": (self.top_k, 0), "min_p": (self.min_p, 0.0)}
        return " · ".join([*filter(None, [counted]), *(f"{k} {v:g}" for k, (v, full) in cut.items() if v != full)])


def unequal(settings: Sequence[Setting]) -> list[str]:
    """In what evaluations differ that are not to be compared; empty where they are."""
    other = [f.name for f in fields(Setting) if len({getattr(s, f.name) for s in settings}) > 1]
    return sorted({"prompts" if name == "count" else name for name in other})


def unlike(a: Setting | None, b: Setting | None) -> list[str]:
    """The same of two, as far as it is known of both."""
    if a is None or b is None:
        return []
    return unequal([a, b] if a.prompts and b.prompts else [replace(s, prompts="") for s in (a, b)])


def setting_at(run: RunFolder, step: int) -> Setting | None:
    """How a run was measured after a step of its training; None where that is not written down."""
    try:
        return Setting.of(read_evaluation(run.evals / f"student_step_{step:06d}.json"))
    except UserError:
        return None


def settings_in_training(run: RunFolder) -> list[Setting]:
    """How a run was measured while it went on, each way once."""
    files = sorted(run.evals.glob("student_step_*.json"))
    return list(dict.fromkeys(Setting.of(read_evaluation(file)) for file in files))


def evaluations(run: RunFolder, step: int | None = None) -> dict[str, dict[str, Any]]:
    """What `opd eval` found last, by row, and its `file`; else what the training run itself measured first and last.

    Args:
        run: whose they are.
        step: of the checkpoint that is spoken of: what was measured after another one has no part in it.

    Raises:
        UserError: a file holds something else.
    """
    files = [run.evals / f"{name}.json" for name in FINAL if (run.evals / f"{name}.json").is_file()]
    final = {e["name"]: e | {"file": f} for f in files for e in [read_evaluation(f)]}
    if final and (step is None or all(_step(name) in (None, step) for name in final)):
        return final
    steps = sorted(run.evals.glob("student_step_*.json"))
    if step is not None:
        steps = [f for f in steps if f.stem in ("student_step_000000", f"student_step_{step:06d}")]
    files = [*steps[:1], *steps[1:][-1:]]
    return {e["name"]: e | {"file": f} for f in files for e in [read_evaluation(f)]}


def _step(name: str) -> int | None:
    """After how many steps a row of `opd eval` was measured; None: it is no checkpoint's."""
    found = re.fullmatch(r"student after (\d+) steps", name)
    return int(found[1]) if found else None


def read_evaluation(file: Path) -> dict[str, Any]:
    """Read one row: `name`, `metrics` and `sampling`; figures that are null are left out."""
    try:
        found = read_json(file)
        drawn = {name: kind(found["sampling"][name]) for name, kind in _DRAWN.items()}
        metrics = {str(name): float(value) for name, value in found["metrics"].items() if value is not None}
        asked = found.get("prompts", {})  # which earlier versions did not write
        read = {"name": str(found["name"]), "metrics": metrics, "sampling": found["sampling"] | drawn, "prompts": asked}
        Setting.of(read)
        return read
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{file}: not the figures of an evaluation, which has a name, metrics that are numbers, and sampling with "
            f"{', '.join(_DRAWN)}; delete it, or evaluate again"
        ) from error


def costs(run: RunFolder, step: int | None = None) -> dict[str, float]:
    """What the run had cost after `step`, or has cost by now: its `cost/...` metrics; empty where there are none."""
    written = read_metrics(run.metrics) if run.metrics.exists() else []
    rows = [row for row in written if step is None or row["step"] == step]
    return {name: value for name, value in (rows[-1] if rows else {}).items() if name.startswith("cost/")}
