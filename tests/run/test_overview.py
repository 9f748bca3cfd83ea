"""A run at a glance: its state, its figures, and whatever else lies in the folder."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from opd.commands.doctor import check_run
from opd.run import manifest
from opd.run.directory import OWNER, RunFolder
from opd.run.ending import NAME, ended, ending
from opd.run.interrupt import Interrupted
from opd.run.overview import Figure, method, overview, overviews
from opd.run.owner import holder, owned
from opd.types import UserError
from tests.report.made import save_run

ROWS = [
    {"step": 0, "eval/accuracy": 0.5, "eval/accuracy_low": 0.4, "eval/accuracy_high": 0.6},
    {"step": 1, "kl/exact": 2.0, "kl/sampled": 9.0, "eval/accuracy": 0.75},
    {"step": 2, "kl/exact": 1.0, "eval/accuracy": 0.7, "eval/accuracy_low": 0.6, "eval/accuracy_high": 0.8},
]
SETTINGS = "name: mine\nsteps: 2\nobjective: {_target_: opd.objectives.gkd.GKD}\nstudent: {lora: {rank: 4}}\n"


def checkpoint(run: RunFolder, step: int) -> None:
    folder = run.checkpoints / f"step_{step:06d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")


def test_what_a_run_has_come_to_is_read_from_its_folder(tmp_path: Path) -> None:
    run = save_run(tmp_path / "a", ROWS, SETTINGS)
    checkpoint(run, 2)
    found = overview(run.path)
    assert (found.conf, found.method, found.step, found.steps, found.checkpoint) == ("mine", "gkd, lora", 2, 2, 2)
    assert found.kl == (2.0, 1.0)
    assert found.best == Figure("eval/accuracy", 0.75, 1)
    assert found.last == Figure("eval/accuracy", 0.7, 2, 0.6, 0.8)
    assert (found.state, found.note, found.verdicts) == ("done", "", None)
    assert found.bytes == sum(p.stat().st_size for p in run.path.rglob("*") if p.is_file())
    run.health.write_text(json.dumps({"verdicts": [{"name": "off policy", "seen": "", "means": "", "do": ""}]}))
    assert overview(run.path).verdicts == ("off policy",)


def test_folders_in_folders_are_looked_through_however_deep_they_are(
    tmp_path: Path, deep: Callable[[Path], Path]
) -> None:
    run = save_run(tmp_path / "a", ROWS, SETTINGS)
    checkpoint(run, 2)
    before, place = overview(run.path), run.checkpoints / "step_000002"
    manifest.write(place)
    (deep(place) / "notes.json").write_text("{}")
    found = overview(run.path)
    assert (found.state, found.bytes) == ("done", before.bytes + 2 + (place / manifest.NAME).stat().st_size)
    check = check_run(run)[0]
    assert "notes.json does not belong to it" in check.found
    (place / manifest.NAME).unlink()
    assert check_run(run)[0].verdict == "fail"


@pytest.mark.parametrize(
    ("error", "how", "why"),
    [
        (None, "done", ""),
        (Interrupted(signal.SIGINT, "stopped after step 1"), "stopped", "stopped after step 1"),
        (KeyboardInterrupt(), "aborted", "second signal"),
        (UserError("no\nroom"), "failed", "no room"),
    ],
)
def test_how_a_run_has_ended_is_noted(error: BaseException | None, how: str, why: str, tmp_path: Path) -> None:
    run = save_run(tmp_path / "a", ROWS)
    with suppress(BaseException), ending(run):
        if error:
            raise error
    found = overview(run.path)
    assert found.state == how
    assert why in found.note


def test_a_run_that_cannot_go_on_is_still_what_it_was(tmp_path: Path) -> None:
    run = save_run(tmp_path / "a", ROWS)
    with ending(run):
        pass
    with pytest.raises(UserError), ending(run):
        raise UserError("no such teacher")
    assert ended(run.path) == ("done", "")
    with pytest.raises(UserError), ending(RunFolder(tmp_path / "none")):
        raise UserError("before there is a run")
    assert not (tmp_path / "none").exists()


def test_nothing_is_noted_in_a_folder_that_has_taken_the_runs_place(tmp_path: Path) -> None:
    run = save_run(tmp_path / "a", ROWS)
    with ending(run):
        run.path.rename(tmp_path / "b")
        save_run(tmp_path / "a", ROWS)
    assert ended(tmp_path / "a") is None
    assert ended(tmp_path / "b") is None


def test_a_run_is_running_as_long_as_it_is_owned_and_was_killed_where_its_mark_stays(tmp_path: Path) -> None:
    run = save_run(tmp_path / "a", ROWS)
    with owned(run, begun=True):
        found = overview(run.path)
        assert found.state == "running"
        assert found.note.startswith("process ")
        mark = (run.path / OWNER).read_text()
    assert holder(run.path) is None
    (run.path / OWNER).write_text(mark)
    (run.path / NAME).write_text('{"how": "done", "why": ""}')  # of the process before
    assert overview(run.path).state == "killed"


def test_whoever_only_looks_keeps_nobody_out(tmp_path: Path) -> None:
    run = save_run(tmp_path / "a", ROWS)
    (run.path / OWNER).write_text("1 host\n")
    assert holder(run.path) is None
    with owned(run, begun=True):
        pass


DAMAGED = {
    "config.yaml": ("steps: [", "config.yaml"),
    "metrics.jsonl": ('{"step": 1}\nnothing\n', "metrics.jsonl, line 2"),
    "eval/student_step_000000.json": ("[]", "not the figures"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_run_is_a_row_that_says_so(name: str, tmp_path: Path) -> None:
    text, says = DAMAGED[name]
    run = save_run(tmp_path / "runs/a", ROWS)
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_text(text)
    (run.path / NAME).write_text("[" * 100_000)
    (found,) = overviews(tmp_path / "runs")
    assert found.state == "damaged"
    assert says in found.note


@pytest.mark.parametrize(
    "settings", ["[]", "1", "name: [1]\nsteps: x\nobjective: 1\nstudent: []\nsource: {_target_: 1}"]
)
def test_settings_of_any_kind_are_survived(settings: str, tmp_path: Path) -> None:
    assert overview(save_run(tmp_path / "a", ROWS, settings).path).conf == ""


def test_strangers_among_runs_are_named_and_not_weighed(tmp_path: Path) -> None:
    save_run(tmp_path / "a", ROWS)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/big").write_text("x" * 1000)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    found = {o.path.name: o for o in overviews(tmp_path)}
    assert found.keys() == {"a", "b"}
    assert (found["b"].state, found["b"].bytes) == ("no run", 0)
    assert [o.path for o in overviews(tmp_path / "a")] == [tmp_path / "a"]
    with pytest.raises(UserError, match="name the folder"):
        overviews(tmp_path / "c")


def test_a_method_is_named_by_its_parts() -> None:
    terms = {"a": {"objective": {"_target_": "opd.objectives.reverse_kl.ReverseKL"}},
             "b": {"objective": {"_target_": "opd.objectives.grpo.GRPO"}}}  # fmt: skip
    source = {"_target_": "opd.sources.mixed.Mixed"}
    assert method({"objective": {"terms": terms}, "source": source}) == "reverse_kl+grpo, mixed"
    assert method({}) == ""
