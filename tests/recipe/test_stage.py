"""Stages: how a command line is made from what a recipe says, and what is kept of an interrupted one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from opd.config import catalog
from opd.config.compose import compose
from opd.recipe import Call, Export, Train, Work
from opd.recipe.stage import placed
from opd.run.checkpoint import latest, none_good
from opd.types import UserError


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def begin(stage: Train | Export, work: Work) -> list[str]:
    """The command line of a stage, begun as the runner does."""
    work.stamps.begin(stage.name, stage.says)
    return stage.begin(work, Path("/recipe/run.py"))


def half_done(stage: Train, work: Work) -> Path:
    """Begin a run and leave a checkpoint of it."""
    begin(stage, work)
    checkpoint = work.run(stage.name).checkpoints / "step_000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").touch()
    return checkpoint


def test_a_half_done_run_goes_on_from_its_checkpoint(work: Work) -> None:
    checkpoint = half_done(Train("a", ("steps=3",)), work)
    assert "--resume" in begin(Train("a", ("steps=3",)), work)
    assert checkpoint.exists()


def test_a_half_done_run_of_other_settings_is_lost_only_where_somebody_removes_it(work: Work) -> None:
    checkpoint = half_done(Train("a", ("steps=3",)), work)
    with pytest.raises(UserError, match=r"/a: this stage is half done as `opd train steps=3 .* now says .*steps=4"):
        begin(Train("a", ("steps=4",)), work)
    assert checkpoint.exists()
    assert "--resume" in begin(Train("a", ("steps=3",)), work)
    shutil.rmtree(work.path / "a")
    assert "steps=4" in begin(Train("a", ("steps=4",)), work)


def test_a_stage_all_of_whose_checkpoints_are_damaged_begins_anew_by_what_is_said_of_it(work: Work) -> None:
    checkpoint, run = half_done(Train("a", ("steps=3",)), work), work.run("a")
    found, damaged = latest(run.checkpoints)
    assert found is None
    assert f"or move {run.checkpoints} out of the run to have it begin anew" in str(none_good(run.path, damaged))
    run.checkpoints.rename(work.path / "aside")
    assert "--resume" not in begin(Train("a", ("steps=3",)), work)
    assert (work.path / "aside" / checkpoint.name).exists()


def test_a_run_that_ended_and_is_not_taken_as_done_begins_anew(work: Work) -> None:
    stage = Train("a", ("steps=3",))
    checkpoint = half_done(stage, work)
    work.stamps.end(stage.name, stage.says, 1.0)
    work.stamps.forget(stage.name)
    assert "--resume" not in begin(stage, work)
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    "name", ["plain", "a b", "a,b", "a(b", "it's", 'say"so"', "a=b{c}", "back\\slash", "end\\", 'b\\"c', "[1]", "~x:y"]
)
@pytest.mark.parametrize("inside", ["", "/sub"])
def test_hydra_reads_the_path_of_any_folder_as_it_is(name: str, inside: str, tmp_path: Path) -> None:
    work = Work(tmp_path / name)
    overrides = placed(("student.model={work}" + inside,), work, Path("/recipe/run.py"))
    settings = compose(catalog.locate("quickstart"), overrides)
    assert settings["student"]["model"] == str(work.path) + inside


def test_what_opd_reads_itself_is_not_quoted() -> None:
    settings = ("conf={recipe}/a.yaml", "run={work}/b", "steps=3")
    assert placed(settings, Work(Path("/w x")), Path("/r/run.py")) == ["conf=/r/a.yaml", "run=/w x/b", "steps=3"]


def bare(work: Work) -> Mapping[str, Any]:
    return {}


def test_a_function_without_a_docstring_is_called_by_its_name() -> None:
    assert Call("found", bare).says == "bare()"
