"""A sample of what `python -m tests.faults disk` does, of that which needs no right to mount anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.disk import faults, judged, whole
from tests.faults.sites import Fault, Made, Site

ALL = faults()
WORST = (
    "narrow, a resumed run, files of 0", "narrow, at judgement 5, files of 600000",
    "replaced, metrics.jsonl is a full device, resumed", "replaced, the owner's mark leads nowhere, resumed",
    "in mid-run, the run is moved away at judgement 5", "in mid-run, its checkpoints are a file at judgement 3",
    "rights, no more writing in RUN from judgement 5 on", "readers, export into a run that is read-only",
    "readers, report into a run, files of 1000", "umasks, export, 077", "parts, TensorBoard's folder is removed",
    "parts, a cache of a teacher's words that nobody may write in", "homes, a folder to work in that is gone, forked",
)  # fmt: skip
SAMPLE = [fault for fault in ALL if str(fault) in WORST]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return whole(tmp_path_factory.mktemp("disk") / "made")


@pytest.mark.parametrize("fault", SAMPLE, ids=lambda fault: ascii(str(fault)))
def test_a_disk_that_fails_gives_one_line_and_leaves_nothing_half_written(
    fault: Fault, made: Made, tmp_path: Path
) -> None:
    assert list(judged(fault, Site(tmp_path / "case", made))) == []


def test_there_are_as_many_faults_as_the_docs_say() -> None:
    assert len(ALL) >= 200
    assert len({str(fault) for fault in ALL}) == len(ALL)
    assert {str(fault) for fault in SAMPLE} == set(WORST)
    assert not any(fault.mounts for fault in SAMPLE)
