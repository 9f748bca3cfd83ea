"""The cache: whole folders or none."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from opd.models import cache
from opd.types import UserError


@dataclass(frozen=True)
class Slow:
    """A source whose folder takes a moment, and which counts how often it is built."""

    log: str
    seconds: float = 0.0
    name: str = "a"

    def path(self) -> str:
        return cache.checkpoint(self, "1", "making", self._write)

    def _write(self, folder: Path, progress: cache.Progress) -> None:
        with open(self.log, "a") as log:
            log.write(f"{os.getpid()}\n")
        (folder / "first").write_text("1")
        time.sleep(self.seconds)
        (folder / "last").write_text("2")
        progress(1.0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the checkpoints of a test in its own folder."""
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


SPAWN = multiprocessing.get_context("spawn")
"""A fork may have been made while another thread held a lock, which its copy waits for without end."""


def builds(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_folder_is_built_once_and_then_reused(tmp_path: Path) -> None:
    source = Slow(str(tmp_path / "log"))
    assert source.path() == source.path()
    assert builds(tmp_path / "log") == 1
    assert sorted(f.name for f in Path(source.path()).iterdir()) == ["first", "last"]


def test_other_fields_and_other_inputs_are_other_folders(tmp_path: Path) -> None:
    a, b = Slow(str(tmp_path / "log")), Slow(str(tmp_path / "log"), name="b")
    other = cache.checkpoint(a, "2", "making", a._write)
    assert len({a.path(), b.path(), other}) == 3


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path, own_cache: Path) -> None:
    def fail(folder: Path, progress: cache.Progress) -> None:
        (folder / "first").write_text("1")
        raise KeyboardInterrupt

    source = Slow(str(tmp_path / "log"))
    with pytest.raises(KeyboardInterrupt):
        cache.checkpoint(source, "1", "making", fail)
    assert [f for f in own_cache.iterdir() if f.is_dir()] == []
    assert (Path(source.path()) / "last").exists()


def test_a_half_written_folder_of_a_killed_process_is_not_taken_for_a_finished_one(
    tmp_path: Path, own_cache: Path
) -> None:
    log = tmp_path / "log"
    process = SPAWN.Process(target=Slow(str(log), seconds=60).path)
    process.start()
    while not builds(log):
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [f for f in own_cache.iterdir() if f.is_dir()], "the dead process left its draft"
    whole = cache.checkpoint(Slow(str(log), seconds=60), "1", "making", Slow(str(log))._write)
    assert sorted(f.name for f in Path(whole).iterdir()) == ["first", "last"]
    assert [f for f in own_cache.iterdir() if f.is_dir()] == [Path(whole)], "the draft is swept away"


def test_of_processes_that_race_one_builds_and_all_get_the_whole_folder(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with SPAWN.Pool(4) as pool:
        paths = pool.map(Slow.path, [Slow(str(log), seconds=0.3)] * 4, chunksize=1)
    assert len(set(paths)) == 1
    assert builds(log) == 1


def test_what_is_being_made_is_said_on_stderr_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Slow(str(tmp_path / "log")).path()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "making\n")


def test_state_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = cache.state(tmp_path)
    assert cache.state(tmp_path) == before
    (tmp_path / "config.json").write_text("{ }")
    assert cache.state(tmp_path) != before


def test_what_is_made_has_the_rights_that_the_umask_leaves(tmp_path: Path, own_cache: Path) -> None:
    before = os.umask(0o077)
    try:
        made = Path(Slow(str(tmp_path / "log")).path())
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in [own_cache, made, *made.iterdir()]} == {0o700, 0o600}


def test_a_cache_that_cannot_be_is_said_with_the_way_to_another_one(tmp_path: Path, own_cache: Path) -> None:
    own_cache.touch()
    with pytest.raises(UserError, match=r"name another folder by the variable OPD_CACHE"):
        Slow(str(tmp_path / "log")).path()


def test_without_a_home_no_folder_called_like_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPD_CACHE")
    monkeypatch.setenv("HOME", "~")
    with pytest.raises(UserError, match="no home folder"):
        cache.root()
