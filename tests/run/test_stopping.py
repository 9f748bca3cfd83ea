"""A run stops where its evaluations say so, keeps its best checkpoint, and does both alike where it was broken off."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opd.commands.finding import find_subject
from opd.commands.subject import Subject
from opd.config.compose import load
from opd.config.stop import StopConfig
from opd.run.checkpoint import Checkpoint, checkpoints
from opd.run.ending import ended
from opd.run.metrics import read_metrics
from opd.run.overview import overview
from opd.run.results import Setting, unlike
from opd.run.stopping import best, enough
from opd.types import UserError
from tests.test_loop import learned
from tests.tiny import cli_code, save_config

SHORT = ["preflight.prompts=2", "eval.size=2", "-q"]


def rows(values: Sequence[float], metric: str = "eval/kl", every: int = 10) -> list[dict[str, float]]:
    return [{"step": i * every, metric: value} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("stop", "values", "says"),
    [
        (StopConfig("eval/kl", target=0.1), [0.5, 0.2], None),
        (StopConfig("eval/kl", target=0.1), [0.5, 0.1], "eval/kl at most 0.1"),
        (StopConfig("eval/kl", target=0.1), [0.05, 0.2], None),
        (StopConfig("eval/kl", target=0.1), [0.5, math.nan], None),
        (StopConfig("eval/accuracy", target=0.9), [0.5, 0.9], "eval/accuracy at least 0.9"),
        (StopConfig("eval/accuracy/sums", target=0.9), [0.5, 0.8], None),
        (StopConfig("eval/kl", patience=2), [0.5, 0.6], None),
        (StopConfig("eval/kl", patience=2), [0.5, 0.6, 0.5], "eval/kl not better than 0.5 at step 0 in 2 evaluations"),
        (StopConfig("eval/kl", patience=2), [0.5, 0.6, 0.4], None),
        (StopConfig("eval/kl", patience=2), [0.5, 0.6, 0.4, 0.41, math.nan], "not better than 0.4 at step 20"),
        (StopConfig("eval/kl", patience=2, change=0.1), [0.5, 0.45, 0.41], "not better than 0.5 at step 0"),
        (StopConfig("eval/kl", patience=2, change=0.1), [0.5, 0.45, 0.39], None),
        (StopConfig("eval/accuracy", patience=1), [0.5, 0.6, 0.6], "not better than 0.6 at step 10"),
        (StopConfig("eval/kl", patience=2), [math.nan, math.nan, math.nan], "not better than a number"),
        (StopConfig("eval/kl", target=0.1, patience=1), [0.05, 0.06], "eval/kl at most 0.1"),
        (StopConfig(), [0.5, 0.5], None),
    ],
)
def test_a_run_is_over_where_its_evaluations_say_so(stop: StopConfig, values: list[float], says: str | None) -> None:
    why = enough(stop, rows(values, stop.metric or "eval/kl"))
    assert why is None if says is None else says in str(why)


def test_what_has_not_moved_for_so_long_is_told_the_first_time_that_it_is_true() -> None:
    made = rows([0.5, 0.4, 0.3, 0.31, 0.32, 0.29, 0.3, 0.3, 0.3])
    stop = StopConfig("eval/kl", patience=3)
    assert [i for i in range(len(made)) if enough(stop, made[: i + 1])] == [8]


def test_the_best_checkpoint_is_the_first_with_the_best_figure_among_those_that_there_are() -> None:
    made = rows([0.1, 0.5, 0.3, math.nan, 0.3])
    assert best("eval/kl", made, [10, 20, 30, 40]) == 20
    assert best("eval/kl", made, [10, 30, 40]) == 40
    assert best("eval/kl", made, [30, 50]) is None
    assert best("eval/accuracy", rows([1.0, 0.5, 0.7], "eval/accuracy"), [10, 20]) == 20


def test_figures_that_were_measured_otherwise_than_the_last_one_are_not_compared_with_it() -> None:
    few, many = (Setting("", size, 1, temperature, 9, 1.0, 0, 0.0) for size, temperature in ((2, 1.0), (30, 0.1)))
    made = rows([0.1, 0.2, 0.5, 0.4])
    assert best("eval/kl", made, [10, 20, 30], {0: few, 10: few, 20: many, 30: many}) == 30
    assert best("eval/kl", made, [10, 20, 30], {0: few, 10: few, 20: many, 30: few}) == 10
    assert best("eval/kl", made, [10], {0: few, 10: few, 20: many, 30: many}) == 10
    assert best("eval/kl", made, [10, 20, 30], {10: None, 20: many, 30: many}) == 10, "nobody knows"
    assert unlike(few, many) == ["prompts", "temperature"]
    assert unlike(few, replace(few, prompts="abc")) == [], "an earlier opd wrote no digest"


def test_a_run_that_goes_on_with_other_evaluations_begins_to_compare_anew_and_says_so(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    every = ["eval.every=1", "checkpoint.keep=1", "checkpoint.best=eval/kl", "stop.metric=eval/kl", "stop.patience=2"]
    begun = ["stop.change=1e9", "optim.lr=1e-12"]
    assert cli_code(["train", f"conf={config}", f"run={run}", "steps=1", *every, *begun, *SHORT]) == 0
    resume = ["train", "--resume", f"run={run}", "-q"]
    capsys.readouterr()
    assert cli_code([*resume, "steps=2", "eval.temperature=0.1", "eval.size=3"]) == 0
    said = capsys.readouterr()
    assert said.err.count("measured with other") == 1
    assert (
        "step 2: measured with other prompts, temperature than at step 1; checkpoint.best and stop.patience compare "
        "from here on only what is measured like this"
    ) in said.err
    assert "stopped" not in said.out
    assert cli_code([*resume, "steps=9"]) == 0
    assert "stopped at step 4" in capsys.readouterr().out
    made = read_metrics(run / "metrics.jsonl")
    assert made[1]["eval/kl"] < min(row["eval/kl"] for row in made[2:])
    kept = [c.step for c in checkpoints(run / "checkpoints")]
    assert chosen("best", run).checkpoint == Checkpoint(run / f"checkpoints/step_{kept[0]:06d}")
    assert kept[0] >= 2
    assert overview(run).best.step >= 2


REFUSED = {
    ("stop.target=0.1",): "stop.target=0.1: also say of which figure",
    ("stop.patience=3",): "stop.patience=3: also say of which figure",
    ("stop.metric=eval/kl",): "stop.metric=eval/kl: also say when",
    ("stop.metric=eval/kl", "stop.target=0.1", "stop.change=0.1"): "stop.change=0.1: it is what stop.patience",
    ("stop.metric=kl/exact", "stop.target=0.1"): "stop.metric=kl/exact: allowed is a figure of evaluations",
    ("stop.metric=eval/length", "stop.target=9"): "stop.metric=eval/length: neither more nor less",
    ("stop.metric=eval/kl", "stop.target=0.1", "eval.every=0"): "stop.metric=eval/kl: it is measured every",
    ("checkpoint.best=eval/kl", "eval.every=0"): "checkpoint.best=eval/kl: it is measured every",
    ("checkpoint.best=kl",): "checkpoint.best=kl: allowed is a figure of evaluations",
}


@pytest.mark.parametrize("given", REFUSED, ids=" ".join)
def test_what_a_run_cannot_go_by_is_refused_when_it_is_composed(config: Path, given: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        load(str(config), list(given))
    assert str(error.value).startswith(REFUSED[given])


def test_a_figure_that_no_evaluation_has_is_refused_before_anything_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", "checkpoint.best=eval/acuracy", *SHORT]) == 2
    said = capsys.readouterr().err
    assert "checkpoint.best=eval/acuracy: evaluations of this run have no such figure, did you mean eval/acc" in said
    assert not run.exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> Path:
    """A run that stops at step 4 of 9, as nothing can be better than a KL of 1e9 for the first time."""
    folder = tmp_path_factory.mktemp("stopped")
    config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
    settings = [
        "steps=9", "eval.every=2", "stop.metric=eval/kl", "stop.patience=2", "stop.change=1e9", "checkpoint.every=3",
        "checkpoint.keep=2", "checkpoint.best=eval/kl",
    ]  # fmt: skip
    assert cli_code(["train", f"conf={config}", f"run={folder / 'run'}", *settings, *SHORT]) == 0
    return folder / "run"


def test_a_run_that_stops_has_saved_its_state_and_says_why(stopped: Path) -> None:
    made = read_metrics(stopped / "metrics.jsonl")
    assert [row["step"] for row in made] == [0, 1, 2, 3, 4]
    how, why = ended(stopped) or ("", "")
    first = f"{made[0]['eval/kl']:.4g}"
    assert (how, why) == ("done", f"stopped at step 4: eval/kl not better than {first} at step 0 in 2 evaluations")
    found = overview(stopped)
    assert (found.state, found.note, found.step, found.steps) == ("done", why, 4, 9)
    kept = {3, 4, min((2, 4), key=lambda step: made[step]["eval/kl"])}
    assert {c.step for c in checkpoints(stopped / "checkpoints")} == kept
    assert json.loads((stopped / "health.json").read_text())["step"] == 4


def test_a_run_that_has_stopped_is_done_and_goes_on_where_it_is_told_otherwise(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    before = (run / "metrics.jsonl").read_bytes()
    assert cli_code(["train", "--resume", f"run={run}", "-q"]) == 0
    assert "done, stopped at step 4: eval/kl not better than" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_bytes() == before
    off = ["stop.metric=null", "stop.patience=null", "stop.change=0", "steps=5"]
    assert cli_code(["train", "--resume", f"run={run}", *off, "-q"]) == 0
    assert ended(run) == ("done", "")
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == 5


def test_a_run_that_was_broken_off_stops_where_the_unbroken_one_does_with_the_same_weights(
    stopped: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    shutil.rmtree(run / "checkpoints/step_000004")  # killed while it was written
    (run / "ended.json").unlink()
    assert cli_code(["train", "--resume", f"run={run}", "-q"]) == 0
    assert ended(run) == ended(stopped)
    assert learned(run) == learned(stopped)
    assert checkpoints(run / "checkpoints")[-1].step == 4
    a, b = (load_file(r / "checkpoints/step_000004/model/model.safetensors") for r in (stopped, run))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_best_checkpoint_stays_beside_the_newest_and_is_what_step_best_names(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    every = ["steps=5", "eval.every=1", "checkpoint.every=5", "checkpoint.keep=1", "checkpoint.best=eval/accuracy"]
    still = ["optim.lr=1e-12"]  # so that the first is the best of equals
    assert cli_code(["train", f"conf={config}", f"run={run}", *every, *still, *SHORT]) == 0
    assert [c.step for c in checkpoints(run / "checkpoints")] == [1, 5]
    assert chosen("best", run).checkpoint == Checkpoint(run / "checkpoints/step_000001")
    with (run / "metrics.jsonl").open("a") as file:  # as of a run that was killed before it had saved its best
        file.write('{"step": 6, "eval/accuracy": 2.0}\n')
    assert chosen("best", run).checkpoint == Checkpoint(run / "checkpoints/step_000001")
    capsys.readouterr()
    assert cli_code(["export", f"run={run}", "step=best", "-q", "--dtype", "float32"]) == 0
    assert "step_000001" in capsys.readouterr().out


def chosen(step: str, run: Path) -> Subject:
    return find_subject({"run": str(run), "step": step}, [])


def test_step_best_is_refused_of_a_run_that_keeps_none(stopped: Path, tmp_path: Path) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    with pytest.raises(UserError, match=r"step=best: .* was trained without checkpoint.best"):
        find_subject({"run": str(run), "step": "best"}, ["checkpoint.best=null"])
    with pytest.raises(
        UserError, match=r"step=best: no checkpoint .* is of a step with eval/pass@1 .*, there are .*3, 4"
    ):
        find_subject({"run": str(run), "step": "best"}, ["checkpoint.best=eval/pass@1"])
