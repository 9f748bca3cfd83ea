"""Work folders: whose they are, and that one `opd recipe run` at a time is in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opd.recipe.claim import claimed
from opd.types import UserError


def test_a_folder_is_made_and_taken_again_after(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path / "deep" / "work"):
            assert (tmp_path / "deep" / "work").is_dir()


@pytest.mark.parametrize("stamps", ["started", "done"])
def test_a_folder_with_stamps_is_taken(tmp_path: Path, stamps: str) -> None:
    (tmp_path / stamps).mkdir()
    (tmp_path / "sft").mkdir()
    with claimed(tmp_path) as lock:
        assert os.fstat(lock).st_ino == (tmp_path / ".lock").stat().st_ino


def test_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "opd").mkdir()
    with (
        pytest.raises(UserError, match="the folder is not empty, and `opd recipe run` has not made it"),
        claimed(tmp_path),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["opd"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is where a folder should be"), claimed(tmp_path / "file" / "work"):
        pass


def test_a_second_run_is_kept_out(tmp_path: Path) -> None:
    with (
        claimed(tmp_path),
        pytest.raises(UserError, match="another `opd recipe run` is at work there"),
        claimed(tmp_path),
    ):
        pass


def test_a_stage_that_outlives_its_parent_keeps_others_out_until_it_ends(tmp_path: Path) -> None:
    with claimed(tmp_path) as held:
        stage = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(held,))
    with pytest.raises(UserError, match="a stage that one has left behind"), claimed(tmp_path):
        pass
    stage.communicate(b"\n")
    with claimed(tmp_path):
        pass
