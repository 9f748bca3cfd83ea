"""Operations and tokens of a run, against torch's own counter and numbers worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, MixtralConfig, Qwen3Config

from opd.batch import to_batch
from opd.cost import Architecture, Flops, backward, contexts, forward
from opd.ledger import architecture, asked_of, read_by, split_of, writers
from opd.lora import Lora
from opd.metrics import read_metrics
from opd.objectives.sft import SFT
from opd.optim import Optim
from opd.protocols import Pupil
from opd.sources.by_task import ByTask
from opd.sources.dataset import DatasetSource
from opd.sources.mixed import Mixed
from opd.sources.student import StudentSource
from opd.sources.teacher import TeacherSource
from opd.student import Student, StudentConfig
from opd.teachers.cross import CrossTeacher
from opd.teachers.local import LocalTeacher
from opd.teachers.routed import RoutedTeacher
from tests.tiny import char_tokenizer, cli_code, rollouts, save_model, scored

SHAPES = [(20, 100), (20, 100), (20, 100)]
"""Sequences of one length: none is padded or packed, so that the counter sees what is counted."""
SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 24, "vocab_size": 45,
}  # fmt: skip


def known(config: object) -> Architecture:
    found = Architecture.of(config)
    assert found is not None
    return found


def whole_square(f: Flops) -> Flops:
    """What the counter sees: it does not know that the mask leaves half of attention out."""
    n = 119
    return Flops(f.linear, f.attention * n * n / contexts(n), f.head, f.adapters)


@pytest.mark.parametrize("cls", [LlamaConfig, Qwen3Config])
@pytest.mark.parametrize("tied", [False, True])
def test_linear_weights_are_those_of_the_model(cls: type, tied: bool) -> None:
    config = cls(**SIZES, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config)
    own = [m.weight.numel() for m in model.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    assert known(config).linear == sum(own)


def test_experts_and_other_networks_are_not_counted(tmp_path: Path) -> None:
    assert Architecture.of(MixtralConfig(num_local_experts=4)) is None
    assert Architecture.of(GPT2Config()) is None


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize(
    ("lora", "checkpointing"), [(None, False), (None, True), (Lora(rank=8), False)], ids=["all", "again", "adapters"]
)
def test_a_step_of_the_learner_has_the_operations_that_torch_counts(
    kind: str, lora: Lora | None, checkpointing: bool, tmp_path: Path
) -> None:
    folder = save_model(tmp_path, kind, seed=0, tied=False, hidden=128, layers=4)
    config = StudentConfig(str(folder), "float32", lora, checkpointing, attention="eager", device="cpu")
    student = Student.load(config, Optim(lr=1e-3), 1.0)
    batch = to_batch(scored(rollouts(SHAPES)), 0, 256)
    assert batch.padding == 0
    with FlopCounterMode(display=False) as counter:
        student.update(batch, SFT(), 1e-3)
    shape = architecture(student.split)
    assert shape is not None
    adapters = 0 if lora is None else sum(p.numel() for p in student.params)
    there = whole_square(forward(shape, SHAPES, batch.trained, adapters))
    expected = there.total + backward(there, frozen=lora is not None, checkpointing=checkpointing)
    # On its second way forward torch leaves out the last product of every layer.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.07 if checkpointing else 0.04)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_reading_has_the_operations_that_torch_counts(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, kind, seed=0, tied=True, hidden=96, layers=3)
    student = Student.load(StudentConfig(str(folder), "float32", attention="eager", device="cpu"), Optim(lr=1e-3), 1.0)
    pairs = [(r.prompt.tokens, r.tokens) for r in rollouts(SHAPES)]
    with FlopCounterMode(display=False) as counter:
        student.logprobs(pairs)
    shape = architecture(student.split)
    assert shape is not None
    there = whole_square(forward(shape, SHAPES, sum(c for _, c in SHAPES)))
    assert counter.get_total_flops() == pytest.approx(there.total, rel=0.01)


def test_contexts_are_those_of_a_causal_mask_and_end_at_the_window() -> None:
    assert contexts(5) == 1 + 2 + 3 + 4 + 5
    assert contexts(5, 2) == 1 + 2 + 2 + 2 + 2
    assert contexts(2, 8) == contexts(2)
    assert contexts(0) == 0


def test_layers_with_a_window_look_no_further() -> None:
    sizes = SIZES | {"sliding_window": 8, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}
    a = known(Gemma3TextConfig(**sizes))
    assert (a.window, a.windowed) == (8, 2)
    seen = 2 * contexts(119, 8) + contexts(119)
    assert forward(a, [(20, 100)], 0).attention == 4 * 4 * 24 * seen


def test_costs_add_up_over_sequences_and_empty_completions_cost_nothing() -> None:
    a = known(LlamaConfig(**SIZES))
    parts = [forward(a, [pair], 7).total for pair in [(3, 9), (4, 2)]]
    assert forward(a, [(3, 9), (4, 2), (5, 0)], 14).total == pytest.approx(sum(parts))


def test_the_way_back_is_twice_the_way_there_and_less_over_a_frozen_base() -> None:
    f = Flops(linear=100.0, attention=10.0, head=20.0)
    assert backward(f) == 260.0
    assert backward(f, checkpointing=True) == 370.0
    assert backward(f, frozen=True) == 140.0


SETTINGS = ["-q", "steps=2", "eval.every=0", "eval.size=2", "checkpoint.every=1"]


def costs(run: Path) -> list[dict[str, float]]:
    return [{k.removeprefix("cost/"): v for k, v in row.items()} for row in read_metrics(run / "metrics.jsonl")]


def trained(config: Path, run: Path, settings: Sequence[str] = ()) -> list[dict[str, float]]:
    assert cli_code(["train", f"conf={config}", f"run={run}", *SETTINGS, *settings]) == 0
    return costs(run)


def test_a_run_adds_up_what_it_costs(config: Path, tmp_path: Path) -> None:
    rows = trained(config, tmp_path / "run")
    assert rows[0]["flops"] == rows[0]["generate_tokens"] == 0
    assert rows[0]["setup_s"] > 0
    tokens = [r.get("rollout/tokens", 0.0) for r in rows]
    for name in ("generate_tokens", "score_tokens", "update_tokens"):
        assert [r[name] for r in rows] == [sum(tokens[: i + 1]) for i in range(3)]
    last = rows[-1]
    assert last["update_flops_backward"] == pytest.approx(2 * last["update_flops_forward"])
    assert last["generate_flops_student"] == last["update_flops_forward"]
    assert last["update_flops_teacher"] > 0  # the exact KL is measured: its head is applied again
    assert last["flops"] == pytest.approx(last["flops_student"] + last["flops_teacher"])
    assert last["total_s"] == pytest.approx(sum(r["perf/step_s"] for r in rows))
    phases = [v for k, v in last.items() if k.endswith("_s") and "/" not in k and "device" not in k and k != "total_s"]
    assert sum(phases) == pytest.approx(last["total_s"])
    assert last["total_device_s"] == last["total_s"]


def test_a_resumed_run_goes_on_counting(config: Path, tmp_path: Path) -> None:
    first = trained(config, tmp_path / "run")
    assert cli_code(["train", "--resume", f"run={tmp_path / 'run'}", "-q", "steps=3"]) == 0
    rows = costs(tmp_path / "run")
    assert rows[:3] == first
    assert rows[3]["update_tokens"] == first[-1]["update_tokens"] + rows[3]["rollout/tokens"]
    assert rows[3]["total_s"] == pytest.approx(sum(r["perf/step_s"] for r in rows))


def test_adapters_save_the_gradients_of_the_base(config: Path, tmp_path: Path) -> None:
    last = trained(config, tmp_path / "run", ["student.lora.rank=1"])[-1]
    assert last["update_flops_forward"] < last["update_flops_backward"] < 1.5 * last["update_flops_forward"]
    assert last["generate_flops_student"] < last["update_flops_forward"]  # the engine has them merged


def test_without_a_teacher_there_is_nothing_to_count_of_one(config: Path, tmp_path: Path) -> None:
    last = trained(config, tmp_path / "run", ["objective=grpo", "teacher=none"])[-1]
    assert (last["score_tokens"], last["flops_teacher"]) == (0, 0)
    assert last["flops"] == last["flops_student"] > 0


def test_a_teacher_that_is_elsewhere_counts_tokens_only(
    config: Path, teacher_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = trained(config, tmp_path / "run", ["teacher._target_=tests.fakes.DistantTeacher", "log.exact_kl=false"])[-1]
    assert last["score_tokens"] == last["generate_tokens"]
    assert last["flops_student"] > 0
    assert math.isnan(last["score_flops_teacher"])
    assert math.isnan(last["flops"])
    assert cli_code(["export", f"run={tmp_path / 'run'}", "--dtype", "float32"]) == 0
    folder = tmp_path / "run"
    capsys.readouterr()
    assert cli_code(["eval", f"run={folder}", "step=1", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["student after 1 steps"]
    assert row["cost/generate_tokens"] == costs(folder)[1]["generate_tokens"]
    assert "cost/flops" not in row  # not known
    assert "## Cost" in next((tmp_path / "run/export").glob("*/README.md")).read_text()


def test_what_the_dataset_or_the_teacher_wrote_is_not_the_students_work(config: Path, tmp_path: Path) -> None:
    off = ["objective=gkd", "sampling.max_tokens=40"]
    data = trained(config, tmp_path / "dataset", ["source=dataset", *off])[-1]
    assert (data["generate_tokens"], data["generate_flops_student"], data["generate_flops_teacher"]) == (0, 0, 0)
    assert data["update_tokens"] > 0
    theirs = trained(config, tmp_path / "teacher", ["source=teacher", *off])[-1]
    assert theirs["generate_flops_student"] == 0
    assert theirs["generate_flops_teacher"] == theirs["score_flops_teacher"] > 0


def test_several_teachers_are_counted_on_what_they_judge(student_dir: Path, teacher_dir: Path) -> None:
    items = rollouts(SHAPES)
    ones = [replace(r, prompt=replace(r.prompt, example=replace(r.prompt.example, task="a"))) for r in items[:1]]
    local = {"dtype": "float32", "prompt": "student"}
    teachers = {
        "one": LocalTeacher(model=str(student_dir), **local),
        "two": LocalTeacher(model=str(teacher_dir), **local),
    }
    pupil = Pupil(char_tokenizer(), 45)
    routed = RoutedTeacher(teachers=teachers, routes={"a": "one"}, default="two").start(pupil)
    found = [(architecture(split_of(s)), len(own)) for s, own in asked_of(routed, [*ones, *items[1:]])]
    assert [(a.hidden, n) for a, n in found if a is not None] == [(64, 1), (96, 2)]
    weighted = RoutedTeacher(teachers=teachers, weights={"one": 1, "two": 2}).start(pupil)
    assert [len(own) for _, own in asked_of(weighted, items)] == [3, 3]


def test_a_teacher_is_counted_in_the_tokens_that_it_reads(teacher_dir: Path) -> None:
    pupil, items = Pupil(char_tokenizer(), 45), rollouts(SHAPES)
    told = LocalTeacher(model=str(teacher_dir), dtype="float32", system="be brief").start(pupil)
    assert read_by(told, items) == [(len(told.read([r.prompt])[0]), len(r.tokens)) for r in items]
    assert read_by(told, items)[0][0] > len("be brief")
    cross = CrossTeacher(model=str(teacher_dir), dtype="float32").start(pupil)
    assert [c for _, c in read_by(cross, items)] == [len(cross.lexicon.translate(r).ids) for r in items]


def test_the_writer_is_found_through_mixtures() -> None:
    mixed = Mixed(parts={"own": StudentSource(), "data": DatasetSource()}, shares={"own": 1, "data": 1})
    both = ByTask(tasks={"sums": TeacherSource()}, others=mixed)
    assert writers(both, "sums") == {"teacher"}
    assert writers(both, "own") == {"student"}
    assert writers(both, "data") == frozenset()
    nested = Mixed(parts={"a": both, "b": DatasetSource()}, shares={"a": 1, "b": 1})
    assert writers(nested, "a") == {"student", "teacher"}
