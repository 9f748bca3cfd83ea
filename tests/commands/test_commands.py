"""`opd eval` and `opd sample` on finished runs, and the whole chain through a real vLLM engine."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from opd.run.metrics import read_metrics
from tests.tiny import cli_code


@pytest.fixture
def run(config: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={folder}", "-q", "steps=4"]) == 0
    return folder


def test_eval_sets_base_student_and_teacher_side_by_side(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["eval", f"run={run}", "--json", "eval.n=4", "eval.k=[1,4]"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == ["student before", "student after 4 steps", "teacher"]
    for row in rows.values():
        assert row["eval/accuracy_low"] <= row["eval/accuracy"] <= row["eval/accuracy_high"]
        assert row["eval/pass@4"] >= row["eval/pass@1"]
    assert abs(rows["teacher"]["eval/kl"]) < 1e-4
    samples = [json.loads(line) for line in (run / "eval/final_after.jsonl").read_text().splitlines()]
    assert len(samples) == 8 * 4
    assert {"prompt", "completion", "score", "tokens", "truncated", "kl"} <= samples[0].keys()


def test_eval_of_the_last_step_is_what_training_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["eval", f"run={run}", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["student after 4 steps"]
    last = read_metrics(run / "metrics.jsonl")[-1]
    assert row["eval/accuracy"] == last["eval/accuracy"]
    assert row["eval/kl"] == pytest.approx(last["eval/kl"], abs=1e-5)


def test_eval_takes_an_earlier_step_or_any_model(
    run: Path,
    config: Path,
    teacher_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aside = run.parent / "aside"
    assert cli_code(["eval", f"run={run}", "step=2", "--json", "--out", str(aside)]) == 0
    assert "student after 2 steps" in json.loads(capsys.readouterr().out)
    assert (aside / "final_after.jsonl").is_file()
    assert not list((run / "eval").glob("final_*"))
    assert cli_code(["eval", f"conf={config}", f"model={teacher_dir}", "--json", f"runs={run.parent}"]) == 0
    assert abs(json.loads(capsys.readouterr().out)[str(teacher_dir)]["eval/kl"]) < 1e-4
    assert cli_code(["eval", f"run={run}", "step=3"]) == 2
    assert "there are 2, 4" in capsys.readouterr().err


def test_greedy_evaluation_prints_its_temperature_and_has_no_kl(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["eval", f"run={run}", "eval.temperature=0"]) == 0
    assert "temperature 0" in capsys.readouterr().out


def test_sample_answers_ones_own_prompt(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["sample", f"run={run}", "-p", "1+2:", "-n", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["prompt"] for r in rows] == ["1+2:", "1+2:"]
    assert all(0 < r["tokens"] <= 8 for r in rows)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.parametrize("extra", [[], ["student.lora.rank=4"]], ids=["all weights", "adapter"])
def test_the_whole_chain_runs_on_vllm(
    config: Path,
    tmp_path: Path,
    extra: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    engine = ["rollout=vllm", "rollout.dtype=float32"]
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", "optim.lr=3e-3", *engine, *extra]) == 0
    rows = read_metrics(run / "metrics.jsonl")
    # Every step's samples come from the weights that the step before it made: the engine is never stale.
    assert max(r["kl/engine_gap_max"] for r in rows[1:]) < 1e-3
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=8"]) == 0
    whole = read_metrics(run / "metrics.jsonl")
    assert [r["step"] for r in whole] == list(range(9))
    assert max(r["kl/engine_gap_max"] for r in whole[1:]) < 1e-3
    assert cli_code(["eval", f"run={run}", "-q"]) == 0
    capsys.readouterr()
    assert cli_code(["export", f"run={run}", "--dtype", "float32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"]["engine"] < 1e-3


@pytest.mark.slow
@pytest.mark.vllm
def test_a_run_that_is_resumed_on_vllm_takes_the_prompts_that_it_would_have_taken(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    engine = ["rollout=vllm", "rollout.dtype=float32", "log.rollouts_every=1", "eval.every=0"]
    assert cli_code(["train", f"conf={config}", f"run={whole}", "-q", "steps=5", *engine]) == 0
    assert cli_code(["train", f"conf={config}", f"run={parts}", "-q", "steps=2", *engine]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=5"]) == 0

    def taken(run: Path) -> list[list[str]]:
        return [pq.read_table(file)["prompt"].to_pylist() for file in sorted((run / "rollouts").glob("*.parquet"))]

    assert len(taken(whole)) == 5
    assert taken(parts) == taken(whole)
