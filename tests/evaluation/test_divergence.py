"""The exact KL on given text, against the models' own full logits in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from opd.evaluation.divergence import both, text_divergence
from opd.models import heads
from opd.models.heads import SplitModel, split_model
from opd.run.metrics import read_metrics
from opd.teachers.local import LocalScorer, LocalTeacher
from opd.teaching import Pupil
from opd.types import Rollout
from tests.tiny import char_tokenizer, cli_code, rollouts, save_model

TEXTS = rollouts([(3, 5), (1, 1), (4, 0), (2, 9), (7, 2), (1, 12), (5, 5)])


def model(path: Path) -> SplitModel:
    return split_model(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval())


def teacher(path: Path, size: int = 45) -> LocalScorer:
    return LocalTeacher(model=str(path), dtype="float32", prompt="student").start(Pupil(char_tokenizer(), size))


def brute_force(student: Path, other: Path, texts: list[Rollout]) -> tuple[float, float]:
    """One text at a time, whole logits, float64, sums written out."""
    nets = [AutoModelForCausalLM.from_pretrained(p, dtype=torch.float64).eval() for p in (student, other)]
    reverse, forward, tokens = 0.0, 0.0, 0
    for text in (t for t in texts if t.tokens):
        ids = torch.tensor([[*text.prompt.tokens, *text.tokens]])
        with torch.no_grad():
            rows = [net(input_ids=ids).logits[0, len(text.prompt.tokens) - 1 : -1, :45] for net in nets]
        pi, q = (row.softmax(-1) for row in rows)
        reverse += float((pi * (pi / q).log()).sum())
        forward += float((q * (q / pi).log()).sum())
        tokens += len(text.tokens)
    return reverse / tokens, forward / tokens


def test_it_is_the_sum_over_the_whole_vocabulary(student_dir: Path, teacher_dir: Path) -> None:
    found = text_divergence(model(student_dir), teacher(teacher_dir), TEXTS, 4096)
    reverse, forward = brute_force(student_dir, teacher_dir, TEXTS)
    assert found["eval/text_kl"] == pytest.approx(reverse, rel=1e-5)
    assert found["eval/text_kl_forward"] == pytest.approx(forward, rel=1e-5)
    assert abs(reverse - forward) > 0.005  # so that the two cannot be mistaken for each other


def test_a_teacher_that_is_the_student_has_none(student_dir: Path) -> None:
    found = text_divergence(model(student_dir), teacher(student_dir), TEXTS, 4096)
    assert all(abs(v) < 1e-6 for v in found.values())


@pytest.mark.parametrize("micro_tokens", [1, 16, 40])
def test_packing_and_the_size_of_micro_batches_and_chunks_change_nothing(
    student_dir: Path, teacher_dir: Path, micro_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, other = model(student_dir), teacher(teacher_dir)
    whole = text_divergence(student, other, TEXTS, 4096)
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 45 * 16)  # several chunks of the head
    for texts in (TEXTS, TEXTS[::-1]):
        assert text_divergence(student, other, texts, micro_tokens) == pytest.approx(whole, rel=1e-5)


def test_padding_rows_of_one_head_are_left_out(student_dir: Path, tmp_path: Path) -> None:
    wide = save_model(tmp_path, "llama", seed=3, tied=False, vocab=64)
    found = text_divergence(model(student_dir), teacher(wide), TEXTS, 4096)
    assert found["eval/text_kl"] == pytest.approx(brute_force(student_dir, wide, TEXTS)[0], rel=1e-5)


def test_what_a_model_rules_out_costs_nothing_where_the_other_does_too() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    assert both(logits, logits).tolist() == [0.0, 0.0]


def test_no_text_has_no_figure(student_dir: Path) -> None:
    assert text_divergence(model(student_dir), teacher(student_dir), rollouts([(4, 0)]), 64) == {}


@pytest.mark.parametrize("lora", ["", "lora"])
def test_eval_of_the_last_step_finds_the_divergence_that_training_found(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lora: str
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"{i}+1={i + 1}; and so on"}) + "\n" for i in range(20)))
    task = f"{{_target_: opd.tasks.text.Passages, path: {texts}, eval_fraction: 0.5, lead: 1}}"
    mixed = [f"data.tasks.texts={task}", "data.weights=null", "data.template=plain"]
    train = ["train", f"conf={config}", f"run={tmp_path / 'run'}", "-q", "steps=2", "optim.lr=0.01"]
    assert cli_code([*train, *([f"student={lora}"] if lora else []), *mixed]) == 0
    capsys.readouterr()
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert cli_code(["eval", f"run={tmp_path / 'run'}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("eval/text_kl", "eval/text_kl_forward", "eval/perplexity"):
        assert found["student before"][name] == pytest.approx(rows[0][name], rel=1e-4)
        assert found["student after 2 steps"][name] == pytest.approx(rows[-1][name], rel=1e-4)
    assert rows[0]["eval/text_kl"] != pytest.approx(rows[-1]["eval/text_kl"], rel=1e-3)
    assert {"eval/accuracy/arithmetic", "eval/count/texts"} <= rows[-1].keys()
