"""A command that is printed to be typed next works as it stands, for the run that it is about."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import opd
from opd.config.trust import VARIABLE
from opd.run.directory import RunFolder
from opd.run.ways import way
from tests.report.made import save_run

OWN = """
objective: {_target_: mine.parts.Squared, inner: {_target_: opd.objectives.sft.Sft}, other: {_target_: tests.fakes.X}}
teacher: {_target_: its.Teacher, trust_remote_code: true}
student: {trust_remote_code: false}
"""


def test_a_command_names_its_run_and_what_the_run_has_to_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tests")
    run = save_run(tmp_path / "my runs" / "it's", [{"step": 1}], OWN)
    words = shlex.split(way("train --resume", run, "step=3"))
    assert words[:5] == ["opd", "train", "--resume", f"run={run.path}", "step=3"]
    assert way("eval", run, ours=False) == shlex.join(["opd", "eval", f"run={run.path}"])
    assert words[5:] == ["--parts", "its", "--parts", "mine.parts", "teacher.trust_remote_code=true"]


def test_a_run_without_a_config_has_nothing_to_allow(tmp_path: Path) -> None:
    assert way("eval", RunFolder(tmp_path)) == f"opd eval run={tmp_path}"


def test_no_command_is_put_together_by_hand() -> None:
    by_hand = re.compile(r"""opd [a-z][a-z -]*(?:run|conf)=\{(?!PLACE|\w+\.quote)""")
    files = Path(opd.__file__).parent.rglob("*.py")
    assert [(file.name, found[0]) for file in files for found in by_hand.finditer(file.read_text())] == []
