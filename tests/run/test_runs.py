"""Run directories: named, found, refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from opd.run.code import commit
from opd.run.directory import (
    OWNER,
    PASSING,
    RunFolder,
    environment,
    find_run,
    new_run,
    newest_run,
    open_run,
    refuse_unwritable,
)
from opd.run.left import refuse_used
from opd.run.owner import owned
from opd.types import RunError, UserError


def make(path: Path, written: float) -> RunFolder:
    """A run whose metrics were last written at a time."""
    run = RunFolder(path)
    run.create("name: x\n", ["a=1", "b=2"])
    run.metrics.write_text("{}\n")
    for file in (run.config, run.metrics):
        os.utime(file, (written, written))
    return run


def test_a_run_holds_what_it_was_made_from(tmp_path: Path) -> None:
    run = make(tmp_path / "a" / "b", 100)
    assert run.config.read_text() == "name: x\n"
    assert (run.path / "overrides.txt").read_text() == "a=1\nb=2\n"
    env = json.loads((run.path / "env.json").read_text())
    assert env["packages"]["opd"]
    assert env["cpus"] >= 1
    assert not {os.uname().nodename, str(Path.home())} & {str(v) for v in env.values()}


def test_two_new_runs_never_share_a_folder(tmp_path: Path) -> None:
    first = new_run(str(tmp_path), "tiny")
    assert first.path.name.startswith("tiny-")
    assert not first.path.exists()
    taken = []
    for _ in range(5):
        run = new_run(str(tmp_path), "tiny")
        run.path.mkdir()
        taken.append(run.path)
    assert len(set(taken)) == 5


def test_the_newest_run_is_the_one_written_to_last(tmp_path: Path) -> None:
    old, new = make(tmp_path / "z", 100), make(tmp_path / "a", 200)
    (tmp_path / "no_run").mkdir()
    assert newest_run(str(tmp_path)) == new
    os.utime(old.metrics, (300, 300))
    assert newest_run(str(tmp_path)) == old


def test_a_run_is_found_by_name_or_under_the_given_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path / "runs" / "a", 100)
    other = make(tmp_path / "other" / "b", 200)
    monkeypatch.chdir(tmp_path)
    assert find_run({}, []).path.resolve() == run.path
    assert find_run({}, [f"runs={tmp_path / 'other'}"]) == other
    assert find_run({"run": str(other.path)}, []) == other


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path / "runs" / "a", 100)
    assert open_run("~/runs/a").path == tmp_path / "runs" / "a"
    assert new_run("~/runs", "x").path.parent == tmp_path / "runs"


def test_what_is_no_run_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    make(tmp_path / "tiny-1", 100)
    with pytest.raises(UserError, match=r"run=.*tinyy-1: no run directory.* did you mean .*tiny-1\?"):
        open_run(str(tmp_path / "tinyy-1"))
    with pytest.raises(UserError, match=r"there is no run in .*empty"):
        newest_run(str(tmp_path / "empty"))


def test_a_folder_in_use_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    refuse_used(RunFolder(tmp_path / "new"))
    refuse_used(RunFolder(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not empty"):
        refuse_used(RunFolder(tmp_path))
    with pytest.raises(UserError, match="this is a file"):
        refuse_used(RunFolder(tmp_path / "file"))


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file is where a folder should be"):
        refuse_unwritable(RunFolder(tmp_path / "file" / "deep" / "run"))
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("link", "link/deep/run"):
        with pytest.raises(UserError, match=r"a link that leads to nothing is where a folder should be: \S+/link; "):
            refuse_unwritable(RunFolder(tmp_path / name))
    with (
        pytest.raises(UserError, match="this is a link that leads to nothing"),
        owned(RunFolder(tmp_path / "link"), begun=False),
    ):
        pass
    (tmp_path / "gone").mkdir()
    refuse_unwritable(RunFolder(tmp_path / "link" / "deep" / "run"))
    refuse_unwritable(RunFolder(tmp_path / "deep" / "run"))


def test_the_environment_names_versions_and_hardware() -> None:
    found = environment()
    assert set(found) - {"commit"} == {"python", "packages", "system", "cpus", "gpus"}
    assert {"torch", "transformers"} <= set(found["packages"])


def test_a_name_that_is_not_utf8_is_refused_as_not_all_libraries_can_write_there(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    for find in (lambda: RunFolder.at(f"{tmp_path}/{name}"), lambda: new_run(f"{tmp_path}/{name}", "tiny")):
        with pytest.raises(UserError, match="name another folder"):
            find()


def test_a_pipe_for_a_note_of_a_run_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "overrides.txt")
    with pytest.raises(RunError, match=r"overrides.txt cannot be written"):
        RunFolder(tmp_path).create("name: x\n", ["a=1"])
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"its config.yaml is no file"):
        open_run(str(tmp_path))


def test_what_a_killed_start_has_left_is_nothing_that_a_run_would_lose(tmp_path: Path) -> None:
    (tmp_path / f"{PASSING}rehearsal-abc").mkdir()
    (tmp_path / ".config.yaml.writing").write_text("half\n")
    for text in ("", "12 somewhere\n"):
        (tmp_path / OWNER).write_text(text)
        refuse_used(RunFolder(tmp_path))
    RunFolder(tmp_path).create("name: x\n", ["b=1"])
    (tmp_path / "config.yaml").unlink()
    refuse_used(RunFolder(tmp_path))
    RunFolder(tmp_path).create("name: x\n", ["a=1"])
    assert (tmp_path / "overrides.txt").read_text() == "a=1\n"
    with pytest.raises(UserError, match="not empty"):
        refuse_used(RunFolder(tmp_path))
    (tmp_path / "config.yaml").unlink()
    (tmp_path / ".mine").touch()
    with pytest.raises(UserError, match="not empty"):
        refuse_used(RunFolder(tmp_path))


@pytest.mark.parametrize("name", [OWNER, "overrides.txt", "env.json"])
@pytest.mark.parametrize("text", ["mine\n", '{"python": "3.11", "packages": {}}', "[1]"])
def test_somebodys_own_file_is_nothing_that_a_start_has_left_whatever_its_name(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="the folder is not empty, and holds no run; name another one"):
        refuse_used(RunFolder(tmp_path))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, text)]


def test_a_folder_is_left_as_it_was_by_who_asks_whether_it_can_be_written_to(tmp_path: Path) -> None:
    refuse_unwritable(RunFolder(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_of_a_checkout_is_known_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    (tmp_path / "code.py").write_text("a = 1\n")
    git("init", "-q")
    assert commit(tmp_path) is None, "there is no commit yet"
    git("add", "code.py")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "notes.txt").write_text("not code")
    assert commit(tmp_path) == head
    (tmp_path / "code.py").write_text("a = 2\n")
    assert commit(tmp_path) == f"{head}+changes"
    (tmp_path / "installed").mkdir()
    assert commit(tmp_path / "installed") is None, "the checkout around it is another program's"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert commit(tmp_path) == f"{head}+changes"
    monkeypatch.setenv("PATH", "")
    assert commit(tmp_path) is None
