"""A command that is printed to be typed next works as it stands, for the run that it is about."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import opd
from opd.config.trust import VARIABLE
from opd.hints import line
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


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    "name",
    ["x\ny", "a\tb", "two  blanks", " ' \\ \x1b[31m", "\u202egnp", "\udcff", "é €", "$HOME `a` !b", "it's"],
)
def test_a_command_that_is_printed_is_what_a_shell_takes_whatever_the_name_of_its_run(name: str) -> None:
    way_on = way("eval", RunFolder(Path(name)))
    assert line(way_on) == way_on, "it is printed as it is"
    taken = subprocess.run(["bash", "-c", f"printf '%s\\0' {way_on}"], capture_output=True, check=True).stdout
    assert taken.split(b"\0")[:3] == [b"opd", b"eval", os.fsencode(f"run={name}")]


def test_no_command_is_put_together_by_hand() -> None:
    by_hand = re.compile(r"""opd [a-z][a-z -]*(?:run|conf)=\{(?!PLACE|\w+\.quote)""")
    files = Path(opd.__file__).parent.rglob("*.py")
    assert [(file.name, found[0]) for file in files for found in by_hand.finditer(file.read_text())] == []
