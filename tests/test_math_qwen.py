"""The field's reference run, with its models replaced by tiny random ones of the same architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opd.run.metrics import read_metrics
from tests.tiny import cli_code, save_model


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hf", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_math_qwen_runs_whole_on_a_tiny_qwen3(engine: str, tmp_path: Path) -> None:
    student = save_model(tmp_path / "student", "qwen3", seed=1, tied=False)
    teacher = save_model(tmp_path / "teacher", "qwen3", seed=2, tied=False, hidden=96)
    problems = tmp_path / "problems.jsonl"
    rows = [{"question": f"what is {i}+{i}", "final_answer": str(2 * i)} for i in range(40)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    code = cli_code(
        [
            "train", "conf=math_qwen", f"run={run}", "-q", f"rollout={engine}", f"student.model={student}",
            f"teacher.model={teacher}", f"data.tasks.deepmath.path={problems}", "data.tasks.deepmath.eval_fraction=0.3",
            "data.tasks.deepmath.suffix=''", "data.prompts_per_step=4", "data.max_prompt_tokens=64", "steps=3",
            "sampling.max_tokens=16", "eval.size=4", "eval.every=0", "preflight.max_gap=1.0",
        ]
    )  # fmt: skip
    assert code == 0
    rows = read_metrics(run / "metrics.jsonl")
    assert [r["step"] for r in rows] == [0, 1, 2, 3]
    assert rows[1]["rollout/count"] == 16
    assert rows[3]["optim/grad_norm"] > 0
    assert (run / "checkpoints/step_000003/model/adapter_model.safetensors").is_file()
