"""`opd harness` on exported checkpoints: lm-eval's own figures, from a local task, without a network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from opd.extras import install
from opd.run.directory import RunFolder
from tests.tiny import char_tokenizer, cli_code, save_config

QUESTIONS = [{"question": f"{i}+{i}=", "choices": [str(i), str(2 * i), "x"], "answer": 1} for i in range(1, 9)]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A multiple choice task in lm-eval's own format."""
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    file = tmp_path / "sums.yaml"
    file.write_text(f"""
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "sums.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
""")
    return file


def by_hand(folder: Path) -> float:
    """Share of the questions whose right choice is the likeliest."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), char_tokenizer()
    right = 0
    for row in QUESTIONS:
        scores = []
        for choice in row["choices"]:
            prompt, answer = (tokenizer.encode(t, add_special_tokens=False) for t in (row["question"], choice))
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            scores.append(float(logits.log_softmax(-1)[range(len(answer)), answer].sum()))
        right += scores.index(max(scores)) == row["answer"]
    return right / len(QUESTIONS)


@pytest.mark.slow
def test_the_newest_export_of_a_run_is_measured_by_lm_evals_own_task(
    task: Path, tmp_path: Path, student_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    run = RunFolder.at(str(tmp_path / "run"))
    (run.path / "export").mkdir(parents=True)
    save_config(run.config, student_dir, student_dir)
    (run.path / "export/step_000004").symlink_to(student_dir)
    (run.path / "export/step_000005-adapter").mkdir()  # no model by itself
    assert cli_code(["harness", f"run={run.path}", "--tasks", str(task)]) == 0
    assert "sums" in capsys.readouterr().out
    found = json.loads((run.evals / "harness.json").read_text())
    assert found["results"]["sums"]["acc,none"] == pytest.approx(by_hand(student_dir))
    assert (found["backend"], found["limit"], found["n-samples"]["sums"]["effective"]) == ("hf", None, len(QUESTIONS))
    assert cli_code(["harness", f"run={run.path}", "--tasks", "arc_esy"]) == 2
    assert "did you mean arc_easy" in capsys.readouterr().err


def test_a_run_without_an_export_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lm_eval")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("name: x\n")
    assert cli_code(["harness", f"run={tmp_path / 'run'}", "--tasks", "arc_easy"]) == 2
    assert f"opd export run={tmp_path / 'run'}" in capsys.readouterr().err


def test_a_missing_extra_is_one_line_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli_code(["harness", "model=m", "--tasks", "arc_easy"]) == 2
    assert install("harness") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "--tasks"), (["--tasks", "a", "steps=3"], "steps=3"), (["--tasks", "a", "run=r"], "leave one out")],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    assert cli_code(["harness", "model=m", *arguments]) == 2
    assert said in capsys.readouterr().err
