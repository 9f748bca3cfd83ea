"""A sample of the lies that a teacher's server can tell, and the worst; `python -m tests.faults servers` tells all."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.teachers import client
from tests.faults.lies import Lie
from tests.faults.servers import judged
from tests.faults.told import lies

ALL = list(lies())
WORST = (
    "a byte every fifth of a second",
    "two gigabytes as gzip, gzip",
    "true late",
    "0.5 late",
    "a terabyte",
    "escapes for a reason",
)
SAMPLE = [lie for i, lie in enumerate(ALL) if (i % 13 == 0 and lie.group != "protocol") or lie.name in WORST]


@pytest.mark.parametrize("lie", SAMPLE, ids=lambda lie: ascii(f"{lie.path} {lie.name}"))
def test_a_server_that_lies_is_found_out_in_one_line_and_in_time(
    lie: Lie, teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    assert list(judged(lie, teacher_dir)) == []


def test_there_are_as_many_lies_as_the_docs_say() -> None:
    assert len(ALL) >= 400
