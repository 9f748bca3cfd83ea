"""A sample of bad inputs, and the worst of them; `python -m tests.faults inputs` tries all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.inputs import Bad, Place, cases, judged, saved

ALL = list(cases())
WORST = (
    "YAML, aliases of aliases", "YAML, references to mappings", "YAML, nested lists", "YAML, a bomb in a group's file",
    "modules, leaves",
    "files, a packed line of a gigabyte", "student's folder, a pickle", "teacher's template, loops",
    "student's template, doubles",
    "student's folder, a pointer for model.safetensors", "overrides, student.device=hpu",
)  # fmt: skip
SAMPLE = [case for i, case in enumerate(ALL) if i % 60 == 7 or str(case) in WORST]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return saved(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: ascii(str(case)))
def test_a_bad_input_gives_one_line_in_time_and_leaves_nothing(
    case: Bad, models: tuple[Path, Path], tmp_path: Path
) -> None:
    assert list(judged(case, Place(tmp_path / "case", *models))) == []


def test_there_are_as_many_bad_inputs_as_the_docs_say() -> None:
    assert len(ALL) >= 1000
    assert {str(case) for case in ALL} >= set(WORST)
