"""A sample of memory faults; `python -m tests.faults memory` tries all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.inputs import Place, saved
from tests.faults.memory import Want, judged, wants

ALL = list(wants())
SAMPLE = (
    "load, the learner, by the system", "generate, in a step", "update, once", "update, always",
    "update, by the system", "eval, its scores", "checkpoint, of a step", "limits, 192 MiB", "counts, 1e11 samples",
    "counts, 1e9 GiB",
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return saved(tmp_path_factory.mktemp("models"))


KNOWN = {
    "load, the learner, by the system": "safetensors raises SystemError where nothing more is mapped: no word of memory"
}
"""What does not hold, and why."""


def sampled(want: Want) -> Any:
    why = KNOWN.get(str(want))
    return pytest.param(want, id=str(want), marks=[pytest.mark.xfail(reason=why)] if why else [])


@pytest.mark.parametrize("want", [sampled(w) for w in ALL if str(w) in SAMPLE])
def test_memory_that_is_refused_is_told_in_one_line_or_done_without(
    want: Want, models: tuple[Path, Path], tmp_path: Path
) -> None:
    assert list(judged(want, Place(tmp_path / "case", *models))) == []


def test_there_are_as_many_memory_faults_as_the_docs_say() -> None:
    assert len(ALL) >= 40
    assert {str(want) for want in ALL} >= set(SAMPLE)
