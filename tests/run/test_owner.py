"""A run's folder has one owner at a time, and is left as it was found where nothing has come into it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from opd.run import owner
from opd.run.directory import OWNER, RunFolder
from opd.run.owner import owned
from opd.run.rehearsal import REHEARSAL
from opd.types import UserError

HOLD = """
import sys, time
from opd.run.directory import RunFolder
from opd.run import owner
from opd.run.owner import locked, owned
from pathlib import Path
with owned(RunFolder(Path(sys.argv[1])), begun=False):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(run: Path) -> subprocess.Popen[str]:
    """Another process that owns a run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_run_that_another_process_trains_is_refused_with_its_name_until_it_has_ended(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs/a")
    process = holder(run.path)
    try:
        said = rf"run={run.path}: process {process.pid} on \S+ trains it; wait"
        with pytest.raises(UserError, match=said), owned(run, begun=True):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert [p.name for p in run.path.iterdir()] == [OWNER]  # as a killed one leaves it
    with owned(run, begun=False) as mine:
        assert mine.run == run
        assert (run.path / OWNER).read_text().split()[0] == str(os.getpid())


def test_a_run_whose_mark_was_deleted_has_its_owner_still(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    process = holder(run.path)
    try:
        (run.path / OWNER).unlink()
        with pytest.raises(UserError, match="another process trains it; wait"), owned(run, begun=True):
            pass
        assert owner.holder(run.path) == "another process"
        assert list(run.path.iterdir()) == []  # nor is a mark of the second one left
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert owner.holder(run.path) is None


def test_of_a_run_that_is_renamed_no_mark_stays_and_whoever_has_its_old_name_keeps_theirs(tmp_path: Path) -> None:
    run, moved = RunFolder(tmp_path / "a"), tmp_path / "b"
    with owned(run, begun=False):
        run.path.rename(moved)
        assert owner.holder(moved) == f"process {os.getpid()} on {platform.node()}"
        with owned(run, begun=False) as other:
            (run.path / "notes").write_text("mine")
            assert other.run == run
            assert {p.name for p in run.path.iterdir()} == {OWNER, "notes"}
            theirs = (run.path / OWNER).stat().st_ino
            with pytest.raises(UserError, match="trains it"), owned(RunFolder(moved), begun=True):
                pass
            assert (run.path / OWNER).stat().st_ino == theirs
    assert (list(moved.iterdir()), [p.name for p in run.path.iterdir()]) == ([], ["notes"])


def test_in_one_process_a_run_has_one_owner_too(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    with owned(run, begun=False), pytest.raises(UserError, match="trains it"), owned(run, begun=False):
        pass


def test_runs_that_take_the_same_free_name_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    run, found, gate = RunFolder(tmp_path / "runs/a"), [], threading.Barrier(8)
    done = threading.Barrier(8)

    def take() -> None:
        gate.wait()
        with owned(run, begun=False, free=True) as mine:
            found.append(mine.run.path.name)
            done.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == sorted(["a", *(f"a-{i}" for i in range(2, 9))])


def test_what_nothing_has_come_into_is_gone_in_the_end_and_what_was_there_stays(tmp_path: Path) -> None:
    with owned(RunFolder(tmp_path / "new/runs/a"), begun=False):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b").mkdir()
    with owned(RunFolder(tmp_path / "b"), begun=False):
        pass
    with owned(RunFolder(tmp_path / "c"), begun=False) as mine:
        (mine.run.path / "config.yaml").write_text("")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["b", "c", "c/config.yaml"]


def test_a_folder_that_was_filled_meanwhile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/config.yaml").write_text("")
    with pytest.raises(UserError, match="the folder is not empty"), owned(RunFolder(tmp_path / "a"), begun=False):
        pass
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["config.yaml"]
    with owned(RunFolder(tmp_path / "a"), begun=True):
        pass


@pytest.mark.parametrize("path", ["file/a", "file"])
def test_a_place_that_cannot_be_had_is_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run=\S+: "), owned(RunFolder(tmp_path / path), begun=False):
        pass


@pytest.mark.parametrize("to", ["no/where", "mine"])
def test_a_mark_that_is_a_link_is_refused_and_what_it_leads_to_is_as_it_was(tmp_path: Path, to: str) -> None:
    (tmp_path / "mine").write_text("what is dear to me")
    (tmp_path / OWNER).symlink_to(tmp_path / to)
    with pytest.raises(UserError, match="is a link"), owned(RunFolder(tmp_path), begun=True):
        pass
    assert (tmp_path / "mine").read_text() == "what is dear to me"
    assert owner.holder(tmp_path) is None


def test_a_mark_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / OWNER)
    with pytest.raises(UserError, match="is a pipe or a device"), owned(RunFolder(tmp_path), begun=True):
        pass
    assert (owner.holder(tmp_path), owner.owner(tmp_path / OWNER)) == (None, "another process")


def test_what_a_killed_start_has_left_does_not_keep_the_next_one_out(tmp_path: Path) -> None:
    left = tmp_path / f"{REHEARSAL}abc"
    left.mkdir()
    with owned(RunFolder(tmp_path), begun=False):
        assert left.exists()  # who rehearses again removes it
