"""An objective gives a value of each token, or is refused by its name, and nothing is learned of what it gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opd.batch import to_batch
from opd.objectives import ReverseKL
from opd.types import PartError
from tests.learner.test_student import SHAPES, load
from tests.tiny import rollouts, scored


class Changed(ReverseKL):
    """One that does something else with what it has worked out."""

    def with_(self, name: str, change: Callable[[Any], Any]) -> Changed:
        inner = getattr(super(), name)
        object.__setattr__(self, name, lambda given: change(inner(given)))
        return self


@pytest.mark.parametrize(("name", "change", "said"), [
    ("loss", Tensor.mean, r"Changed\.loss gave a tensor of \[\]; allowed is a tensor of \[\d+\], the loss of each"),
    ("loss", Tensor.detach, r"Changed\.loss gave a tensor of \[\d+\] without a graph"),
    ("loss", lambda losses: None, r"Changed\.loss gave a NoneType; allowed"),
    ("advantages", lambda a: a[:, :1], r"Changed\.advantages gave a tensor of \[7, 1\]; allowed is a tensor of \[7"),
    ("advantages", lambda a: {"own": a.tolist()}, r"Changed\.advantages gave a list; allowed"),
])  # fmt: skip
def test_what_is_not_one_value_of_each_token_is_refused(
    student_dir: Path, name: str, change: Callable[[Any], Any], said: str
) -> None:
    student = load(student_dir)
    before = [p.clone() for p in student.params]
    with pytest.raises(PartError, match=said):
        student.update(to_batch(scored(rollouts(SHAPES)), 0, 24), Changed().with_(name, change), lr=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, student.params, strict=True))
