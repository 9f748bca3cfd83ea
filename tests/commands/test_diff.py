"""`opd diff`: what is told of two runs, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.made import save_run
from tests.tiny import cli_code

SAMPLING = {"max_tokens": 8, "n": 1, "temperature": 1.0}


def made(folder: Path, lr: float, right: float, count: int = 100, steps: int = 40) -> Path:
    rows = [{"step": s, "kl/exact": lr + 0.01 * (s % 3), "optim/lr": lr} for s in range(1, steps + 1)]
    run = save_run(folder, rows, f"name: made\noptim: {{lr: {lr}}}\ndata: {{tasks: {{sums: {{max: 9}}}}}}\n")
    run.evals.mkdir()
    metrics = {"eval/count": count, "eval/accuracy": right, "eval/accuracy_low": right - 0.1,
               "eval/accuracy_high": right + 0.1, "eval/kl": lr}  # fmt: skip
    said = {"name": f"student after {steps} steps", "metrics": metrics, "sampling": SAMPLING}
    (run.evals / "final_after.json").write_text(json.dumps(said))
    (folder / "env.json").write_text(json.dumps({"python": "3.11", "packages": {"torch": f"{lr}"}}))
    return folder


def test_settings_evaluations_curves_and_versions_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.25, 0.7, steps=50)
    assert cli_code(["diff", str(a), str(b), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["settings"] == {"optim.lr": ["0.5", "0.25"]}
    figures = {e["metric"]: e["beyond_noise"] for e in said["evaluations"]}
    assert figures == {"eval/accuracy": True, "eval/kl": None}
    (curve,) = said["curves"]
    assert (curve["steps"], curve["parted"]) == (40, 1)
    assert said["environment"] == {"packages.torch": ["0.5", "0.25"]}
    assert cli_code(["diff", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "30.0% [20.0%, 40.0%]" in out
    assert "from step 1 on" in out
    assert "no commit" in out


def test_evaluations_of_other_prompts_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.5, 0.7, count=50)
    assert cli_code(["diff", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "not measured alike: of 100 and 50 completions" in out
    assert "evaluations (95% intervals): none" in out


def test_as_many_prompts_that_are_others_are_not_compared_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.5, 0.7)]
    for run, digest in zip(runs, ("one", "other"), strict=True):  # by opd eval run=b data=OTHER
        file = run / "eval/final_after.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": {"count": 100, "digest": digest}}))
    assert cli_code(["diff", *map(str, runs)]) == 0
    out = capsys.readouterr().out
    assert "not measured alike: the prompts are not the same" in out
    assert "evaluations (95% intervals): none" in out


@pytest.mark.parametrize("given", [["a"], ["a", "b", "a"], ["a", "a"], ["a", "none"]])
def test_anything_but_two_runs_is_a_mistake(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.5, 0.7)
    monkeypatch.chdir(tmp_path)
    assert cli_code(["diff", *given]) == 2
    assert capsys.readouterr().err.count("\n") == 1
