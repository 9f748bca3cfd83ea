"""What cannot be written is said in one line, leaves nothing half-written, and harms nothing that was there before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from opd.config.compose import load
from opd.disk import refusal, refuse_narrow, whole, writing
from opd.places import share
from opd.run.checkpoint import checkpoints, latest
from opd.run.metrics import read_metrics
from opd.run.room import more_at_once
from opd.run.rows import MetricsFile
from opd.types import RunError, UserError
from tests.tiny import cli_code

NARROW = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from opd.cli import main
main(sys.argv[2:])
"""
"""A process none of whose files may be larger: a disk that is full, to whoever writes."""


def test_a_whole_file_or_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    full = OSError(28, "No space left on device")

    def half() -> None:
        with whole(path) as part:
            part.write_text("half")
            raise full

    with pytest.raises(RunError, match=f"{path} cannot be written: No space"):
        half()
    assert path.read_text() == "before"
    with whole(path) as part:
        part.write_text("after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_that_a_person_names_stays_one_and_any_other_is_replaced_and_what_it_leads_to_is_as_it_was(
    tmp_path: Path,
) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there/file")
    for text in ("first", "second"):
        with whole(link, follow=True) as part:
            part.write_text(text)
    assert link.is_symlink()
    assert [p.read_text() for p in (tmp_path / "there").iterdir()] == ["second"]
    full = Path("/dev/full")
    with pytest.raises(RunError, match="/dev/full cannot be written: No space"), whole(full, follow=True) as part:
        part.write_text("third")
    assert full.is_char_device()
    with whole(link) as part:
        part.write_text("fourth")
    assert (link.is_symlink(), link.read_text(), (tmp_path / "there/file").read_text()) == (False, "fourth", "second")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (OSError(28, "No space left on device"), "a file cannot be written: No space left on device"),
        (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), "File too large"),
        (ConnectionResetError(104, "Connection reset by peer"), None),
        (SafetensorError("header too large"), None),
        (ValueError("28"), None),
    ],
)
def test_what_the_system_refuses_is_told_from_errors_of_a_program(error: Exception, words: str | None) -> None:
    found = refusal(error)
    assert found is None if words is None else words in str(found)


def test_what_is_named_is_the_file_where_the_system_says_which(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"{tmp_path / 'no/file'} cannot be written: No such file"), writing(tmp_path):
        (tmp_path / "no/file").write_text("")


def test_a_line_that_did_not_fit_is_said_once_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write(0, {"kl": 1.0})
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._file.fileno())
    os.close(full)
    monkeypatch.setattr(file, "_intact", lambda: True)
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be written: No space"):
        file.write(1, {"kl": 1.0})
    file.close()
    assert [row["step"] for row in read_metrics(path)] == [0]


@pytest.mark.parametrize(
    ("version", "there", "more", "with_best"),
    [(0, 0, 3, 4), (4, 2, 1, 2), (4, 3, 0, 1), (6, 3, 0, 0), (4, 1, 1, 3)],
)
def test_room_is_asked_for_what_is_there_at_once(
    config: Path, tmp_path: Path, version: int, there: int, more: int, with_best: int
) -> None:
    cfg = load(str(config), ["steps=6"]).config  # every 2 steps, 2 are kept
    for step in range(there):
        folder = tmp_path / f"checkpoints/step_{step:06d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text("{}")
    assert more_at_once(cfg, tmp_path, version) == more
    best = load(str(config), ["steps=6", "checkpoint.best=eval/kl", "eval.every=1"]).config
    assert more_at_once(best, tmp_path, version) == with_best


def test_a_disk_that_is_too_small_is_refused_with_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7e9))
    refuse_narrow(tmp_path / "new", int(2e9), 3)
    with pytest.raises(UserError, match=r"3 checkpoints of 3 GB .* 7 GB are free"):
        refuse_narrow(tmp_path / "new", int(3e9), 3)


def test_files_get_the_rights_of_the_one_that_was_written_openly(tmp_path: Path) -> None:
    for name, mode in (("open", 0o640), ("a/private", 0o600)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    share(tmp_path, like=tmp_path / "open")
    assert (tmp_path / "a/private").stat().st_mode & 0o777 == 0o640


def test_others_may_read_a_checkpoint_as_far_as_the_umask_says(config: Path, tmp_path: Path) -> None:
    assert cli_code(["train", f"conf={config}", f"run={tmp_path / 'run'}", "steps=1", "-q"]) == 0
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert {p.stat().st_mode & 0o777 for p in files} == {(tmp_path / "run/config.yaml").stat().st_mode & 0o777}


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_one_line_and_leaves_the_checkpoint_before(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [f"conf={config}", f"run={run}", "checkpoint.every=1", "log.rollouts_every=0"]
    assert cli_code(["train", *settings, "steps=2", "-q"]) == 0
    newest = checkpoints(run / "checkpoints")[-1]
    limit = (newest.path / "optimizer.safetensors").stat().st_size - 1
    done = subprocess.run(
        [sys.executable, "-c", NARROW, str(limit), "train", "--resume", f"run={run}", "steps=4", "-q"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("opd: step 3: ")
    assert "cannot be written: " in line
    assert "File too large" in line
    assert f"the last good checkpoint is {newest.path}" in line
    assert latest(run / "checkpoints") == (newest, [])
    assert not list((run / "checkpoints").glob(".*"))
    assert cli_code(["train", "--resume", f"run={run}", "steps=4", "-q"]) == 0
