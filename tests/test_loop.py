"""Whole runs on tiny models with the transformers engine: they learn, survive and stop as they should."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opd.loop import ages
from opd.run.checkpoint import checkpoints
from opd.run.metrics import read_metrics
from tests.tiny import cli_code, rollouts, scored, timed

ROOT = Path(__file__).parents[1]


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "opd", "train", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def wait_for_step(run: Path, step: int, seconds: float = 120) -> None:
    """Return as soon as the metrics of a step are written."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (run / "metrics.jsonl").exists() and any(r["step"] >= step for r in read_metrics(run / "metrics.jsonl")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step} within {seconds} s")


def learned(run: Path) -> list[dict[str, float]]:
    """Metrics without those that depend on the machine."""
    rows = read_metrics(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith("perf/") and not timed(k)} for row in rows]


def test_a_run_writes_what_it_should_and_the_kl_falls(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", "steps=25", "-q"]) == 0
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "overrides.txt", "env.json", "metrics.jsonl", "rollouts", "eval", "checkpoints"} <= names
    rows = read_metrics(run / "metrics.jsonl")
    assert [r["step"] for r in rows] == list(range(26))
    assert sum(r["kl/exact"] for r in rows[-5:]) < 0.8 * sum(r["kl/exact"] for r in rows[1:6])
    assert [c.step for c in checkpoints(run / "checkpoints")] == [24, 25]
    assert "eval/accuracy" in rows[0]
    assert "eval/accuracy" in rows[25]
    assert abs(rows[3]["kl/engine_gap"]) < 1e-4
    assert json.loads((run / "env.json").read_text())["packages"]["torch"]


def test_a_run_on_a_share_of_all_tokens_is_the_plain_one_to_the_bit(config: Path, tmp_path: Path) -> None:
    share = (
        "objective=share",
        "objective.terms.all.tokens.first.share=1",
        "objective.terms.all.tokens.first.by=random",
    )
    plain, shared, fewer = tmp_path / "plain", tmp_path / "shared", tmp_path / "fewer"
    given = (f"conf={config}", "steps=2", "-q")
    assert cli_code(["train", *given, "objective=reverse_kl", f"run={plain}"]) == 0
    assert cli_code(["train", *given, *share, f"run={shared}"]) == 0
    assert learned(plain) == learned(shared)
    assert cli_code(["train", *given, "objective=share", f"run={fewer}"]) == 0  # by entropy: a forward pass more
    ours, theirs = learned(fewer)[1], learned(plain)[1]
    assert ours["rollout/tokens"] == theirs["rollout/tokens"]
    assert ours["optim/grad_norm"] != theirs["optim/grad_norm"]
    assert ours["cost/update_flops_forward"] == 2 * theirs["cost/update_flops_forward"]


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(config: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert cli_code(["train", f"conf={config}", f"run={whole}", "-q"]) == 0
    process = start(
        f"conf={config}", f"run={killed}", "-q", "teacher._target_=tests.fakes.SlowTeacher", "teacher.seconds=0.2"
    )
    wait_for_step(killed, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [c.step for c in checkpoints(killed / "checkpoints")][-1] < 6
    assert cli_code(["train", "--resume", f"run={killed}", "-q"]) == 0
    assert learned(whole) == learned(killed)
    a, b = (load_file(r / "checkpoints/step_000006/model/model.safetensors") for r in (whole, killed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    number: signal.Signals, code: int, config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(
        f"conf={config}", f"run={run}", "steps=500", "checkpoint.every=400", "teacher._target_=tests.fakes.SlowTeacher"
    )
    wait_for_step(run, 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    last = checkpoints(run / "checkpoints")[-1].step
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == last
    assert f"opd train --resume run={run}" in err


@pytest.mark.slow
def test_a_second_signal_aborts_at_once(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(
        f"conf={config}", f"run={run}", "steps=500", "teacher._target_=tests.fakes.SlowTeacher", "teacher.seconds=20",
        "teacher.spared=1", "preflight.prompts=1", "eval.size=1", "eval.temperature=0",
    )  # fmt: skip
    wait_for_step(run, 0)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert time.monotonic() - sent < 15
    assert process.returncode == 130


def test_the_age_of_samples_is_told_where_some_are_stale() -> None:
    fresh = scored([replace(r, version=4) for r in rollouts([(2, 3), (2, 0), (1, 2)])])
    assert ages(fresh, 4) == {}
    older = [replace(s, rollout=replace(s.rollout, version=2)) for s in fresh[:1]]
    given = [replace(s, rollout=replace(s.rollout, version=0, writers=())) for s in fresh[:1]]
    assert ages([*older, *fresh, *given], 4) == {"rollout/age": 0.5, "rollout/age_max": 2.0}
    assert ages(given, 4) == ages([], 4) == {}


def test_a_nan_stops_the_run_and_names_the_last_good_checkpoint(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    broken = ["teacher._target_=tests.fakes.BrokenTeacher", "teacher.good_calls=6", "eval.every=0"]
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", *broken]) == 1
    message = capsys.readouterr().err
    assert "not finite" in message
    assert str(checkpoints(run / "checkpoints")[-1].path) in message


def test_a_preflight_that_fails_stops_before_anything_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", "preflight.max_kl=0.001"]) == 1
    assert "preflight" in capsys.readouterr().err
    assert not run.exists()


def test_a_folder_that_holds_something_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    assert cli_code(["train", f"conf={config}", f"run={tmp_path / 'run'}"]) == 2
    assert "holds no run; name another one" in capsys.readouterr().err


def test_several_optimizer_steps_per_batch_are_resumed_and_counted(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", "optim.steps_per_batch=4", "steps=2"]) == 0
    state = json.loads((run / "checkpoints/step_000002/state.json").read_text())
    assert state["optimizer_steps"] == 8


def test_adapters_train_and_resume(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    lora = ["student.lora.rank=4", "eval.every=0"]
    assert cli_code(["train", f"conf={config}", f"run={whole}", "-q", "steps=4", *lora]) == 0
    assert cli_code(["train", f"conf={config}", f"run={parts}", "-q", "steps=2", *lora]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=4"]) == 0
    assert "steps: 4" in (parts / "config.yaml").read_text()
    rows = [[r for r in learned(run) if r["step"] in (3, 4)] for run in (whole, parts)]
    assert [r["kl/sampled"] for r in rows[0]] == [r["kl/sampled"] for r in rows[1]]
    a, b = (load_file(r / "checkpoints/step_000004/model/adapter_model.safetensors") for r in (whole, parts))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_moving_average_as_teacher_is_resumed_exactly(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    own = ["teacher=self_ema", "teacher.decay=0.5", "teacher.context='{prompt}{answer}'", "eval.every=0"]
    assert cli_code(["train", f"conf={config}", f"run={whole}", "-q", "steps=4", *own]) == 0
    assert cli_code(["train", f"conf={config}", f"run={parts}", "-q", "steps=2", *own]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=4"]) == 0
    rows = [[r for r in learned(run) if r["step"] in (3, 4)] for run in (whole, parts)]
    assert [r["kl/sampled"] for r in rows[0]] == [r["kl/sampled"] for r in rows[1]]
    a, b = (load_file(r / "checkpoints/step_000004/teacher.safetensors") for r in (whole, parts))
    assert all(torch.equal(a[k], b[k]) for k in a)
