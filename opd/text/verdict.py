"""What a task's verifier says of a text, which may be anybody's code."""

from __future__ import annotations

from numbers import Real
from typing import Any

from opd.hints import shown
from opd.protocols import Task
from opd.types import Example, RunError


def verdict(task: Task, example: Example, text: str) -> float | None:
    """The score of a completion's text, in [0, 1]; None where the task cannot judge.

    Raises:
        RunError: it gave something else, of which means and intervals would be nonsense.
    """
    score: Any = task.verify(example, text)
    if score is None:
        return None
    if isinstance(score, Real) and 0 <= float(score) <= 1:
        return float(score)
    raise RunError(
        f"data.tasks.{example.task}: its verifier gave {shown(score)}; allowed is a number from 0 to 1, or None where "
        "it cannot tell"
    )
