"""`opd harness` on exported checkpoints: lm-eval's own figures, from a local task, without a network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from opd.commands.harness import table
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
    assert capsys.readouterr().out.split()[:4] == ["task", "examples", "filter", "metric"]
    found = json.loads((run.evals / "harness.json").read_text())
    assert found["results"]["sums"]["acc,none"] == pytest.approx(by_hand(student_dir))
    assert (found["backend"], found["limit"], found["n-samples"]["sums"]["effective"]) == ("hf", None, len(QUESTIONS))
    assert cli_code(["harness", f"run={run.path}", "--tasks", "arc_esy"]) == 2
    assert "did you mean arc_easy" in capsys.readouterr().err


def test_figures_stand_below_their_names_each_once() -> None:
    group = {"alias": "both", "acc,none": 0.5, "acc_stderr,none": "N/A"}
    one = {"alias": " - a", "sample_len": 8, "acc,none": 0.25, "acc_stderr,none": 0.1}
    found = {"results": {"both": group, "a": one}, "groups": {"both": group}, "n-shot": {"a": 3}}
    header, _, *lines = table(found).splitlines()
    assert header.split() == ["task", "examples", "filter", "metric", "value", "standard", "error"]
    assert [line.split() for line in lines] == [
        ["both", "none", "acc", "0.5000", "N/A"], ["-", "a", "3", "none", "acc", "0.2500", "0.1000"],
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("text", ["task: [\n", "task: mine\n"])
def test_a_file_that_is_no_task_is_a_mistake_and_no_internal_error(
    text: str, tmp_path: Path, student_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    (tmp_path / "own.yaml").write_text(text)
    command = [
        "harness",
        f"model={student_dir}",
        "--tasks",
        str(tmp_path / "own.yaml"),
        "--out",
        str(tmp_path / "o.json"),
    ]
    assert cli_code(command) == 2
    assert "own.yaml" in capsys.readouterr().err


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


def test_where_the_figures_go_is_looked_at_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    (tmp_path / "file").touch()
    out = tmp_path / "file/figures.json"
    assert cli_code(["harness", "model=m", "--tasks", "arc_easy", "--out", str(out)]) == 2
    assert "name another file by --out FILE" in capsys.readouterr().err
