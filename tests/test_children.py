"""Processes of Python that opd starts: they run what ships, whatever lies in the folder that a person is in."""

from __future__ import annotations

import operator
import os
import re
import subprocess
from pathlib import Path

import pytest

import opd
from opd import children
from opd.rollout.apart.process import EngineProcess
from opd.rollout.hf import Hf
from opd.tasks.grader import Grader
from opd.types import Pretrained

NAMES = ("opd", "torch", "multiprocessing", "vllm", "peft")


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that one is in has packages by the names of those that are imported."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(tmp_path / 'it_ran')!r}, 'w')\n")
    return tmp_path / "it_ran"


def test_all_of_them_are_started_by_one_way() -> None:
    texts = {file: file.read_text() for file in (children.ROOT / "opd").rglob("*.py")}
    found = [file.name for file, text in texts.items() if re.search(r"""sys\.executable,\s*["']-""", text)]
    assert found == [Path(children.__file__).name] or not found
    assert [file.name for file, text in texts.items() if '"-m", module' in text] == ["children.py"]


def test_a_command_imports_this_opd(foreign: Path) -> None:
    command = children.command("opd", "version")
    out = subprocess.run(command, env=children.environment(), capture_output=True, text=True, check=True).stdout
    assert out == f"{opd.__version__}\n"
    assert not foreign.exists()
    subprocess.run([part for part in command if part != "-P"], env=os.environ | {children.PLACES: ""}, check=False)
    assert foreign.exists()


def test_what_finds_this_opd_is_added_once_and_before_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    once = children.environment({children.PLACES: "/a"})[children.PLACES]
    assert once == children.environment({children.PLACES: once})[children.PLACES]
    assert once.split(":")[-1] == "/a"
    monkeypatch.setattr(children, "ROOT", Path("/lib/python3/site-packages"))
    assert children.environment({"X": "1"}) == {"X": "1"}


def test_graders_and_engines_import_nothing_of_it(foreign: Path, student_dir: Path) -> None:
    grader = Grader()
    try:
        assert grader.score(operator.methodcaller, ("count", "a"), "banana") == 3.0
    finally:
        grader.close()
    engine = EngineProcess(Hf(), Pretrained(str(student_dir)), max_len=16, seed=0, threads=1)
    try:
        engine.answer()
    finally:
        engine.close()
    assert not foreign.exists()
