"""Whole runs of two steps with each source."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from opd.run.metrics import read_metrics
from tests.tiny import cli_code, timed

MIX = ["source=mixed", "source.shares.student=0.5", "source.shares.dataset=0.5"]
TALK = ["source=multi_turn", "data.tasks.arithmetic._target_=tests.sources.desks.Talkative", "sampling.max_tokens=60"]
RUNS = {
    "dataset": ["source=dataset", "objective=gkd", "sampling.max_tokens=40"],
    "teacher": ["source=teacher", "objective=gkd"],
    "mixed": [*MIX, "objective=gkd"],
    "teacher_mixed": ["source=teacher_mixed"],
    "multi_turn": TALK,
}
QUICK = ["-q", "eval.every=0", "eval.size=2", "log.rollouts_every=1"]


def learned(run: Path) -> list[dict[str, float]]:
    """Metrics of the steps, without those that depend on the machine."""
    rows = read_metrics(run / "metrics.jsonl")
    return [
        {k: v for k, v in r.items() if not k.startswith(("perf/", "eval/")) and not timed(k)} for r in rows if r["step"]
    ]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_two_steps_trains(name: str, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", "steps=2", *QUICK, *RUNS[name]]) == 0
    rows = learned(run)
    assert len(rows) == 2
    assert all(math.isfinite(v) for row in rows for v in row.values())
    assert all(row["optim/trained_tokens"] > 0 and row["optim/grad_norm"] > 0 for row in rows)
    if name == "multi_turn":
        assert all(row["optim/trained_tokens"] < row["rollout/tokens"] for row in rows)
        assert all(abs(row["kl/engine_gap"]) < 1e-4 for row in rows)
    else:
        assert all(row["optim/trained_tokens"] == row["rollout/tokens"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_resumed_writes_what_it_would_have_written(name: str, config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = ["train", f"conf={config}", *QUICK, *RUNS[name]]
    assert cli_code([*common, f"run={whole}", "steps=2", "checkpoint.every=1"]) == 0
    assert cli_code([*common, f"run={parts}", "steps=1"]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=2"]) == 0
    assert learned(whole) == learned(parts)
    a, b = (sorted((run / "rollouts").glob("*.parquet"))[-1] for run in (whole, parts))
    assert repr(pq.read_table(a).to_pylist()) == repr(pq.read_table(b).to_pylist())  # in which NaN is NaN


def test_a_policy_gradient_on_anothers_words_is_refused_before_anything_is_loaded(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in ("dataset", "teacher", "mixed"):
        assert cli_code(["train", f"conf={config}", f"run={tmp_path / 'run'}", f"source={source}"]) == 2
        assert "completions that the student writes" in capsys.readouterr().err


def test_a_dataset_without_completions_is_one_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"run={tmp_path / 'run'}", "source=dataset", "objective=gkd", "data=calculator", *QUICK]
    assert cli_code(["train", f"conf={config}", *arguments]) == 2
    assert "data.tasks.calculator.completion_column" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.vllm
def test_student_and_teacher_are_sampled_by_two_vllm_engines_of_one_process(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    run = tmp_path / "run"
    engine = ["rollout=vllm_tiny", "rollout.memory_gb=0.25", "rollout.max_num_seqs=64"]
    mixed = ["source.alpha=0.5"]
    for source, objective in (("teacher", ["objective=gkd"]), ("teacher_mixed", mixed)):
        at = run / source
        arguments = [f"run={at}", "steps=2", f"source={source}", *objective, *engine, *QUICK]
        assert cli_code(["train", f"conf={config}", *arguments]) == 0
        assert len(learned(at)) == 2
        assert all(row["optim/grad_norm"] > 0 for row in learned(at))
    assert all(row["kl/engine_gap"] > 0 for row in learned(run / "teacher_mixed"))
