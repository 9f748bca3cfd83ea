"""What a run adds up: whose tokens and operations they are."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from opd.config.compose import load
from opd.run.ledger import Ledger, architecture
from opd.run.metrics import read_metrics
from opd.sources.by_task import ByTask
from opd.sources.dataset import DatasetSource
from opd.sources.mixed import Mixed
from opd.sources.student import StudentSource
from opd.tasks.arithmetic import Arithmetic
from opd.teachers.cross import CrossTeacher
from opd.teachers.local import LocalTeacher
from opd.teachers.routed import RoutedTeacher
from opd.teaching import Pupil
from opd.types import Sampling
from tests.sources.desks import STOP, make_desk, tables
from tests.tiny import char_tokenizer, cli_code, prompts, rollouts, save_model

SHAPES = [(20, 100), (20, 100), (20, 100)]
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


def test_a_look_at_what_the_student_says_now_is_a_forward_pass_more(config: Path, tmp_path: Path) -> None:
    last = trained(config, tmp_path / "run", ["objective.student=now", "objective.discount=0.5"])[-1]
    assert last["update_flops_forward"] == pytest.approx(last["update_flops_backward"])
    assert last["update_flops_forward"] == pytest.approx(2 * last["generate_flops_student"])


def test_gpt2_and_a_mixture_of_experts_are_counted(config: Path, tmp_path: Path) -> None:
    student = save_model(tmp_path / "gpt2", "gpt2", seed=0, tied=True)
    teacher = save_model(tmp_path / "experts", "qwen3_moe", seed=1, tied=False)
    last = trained(config, tmp_path / "run", [f"student.model={student}", f"teacher.model={teacher}"])[-1]
    assert last["update_flops_backward"] == pytest.approx(2 * last["update_flops_forward"])
    assert math.isfinite(last["flops"])
    assert last["flops_teacher"] > 0


def test_a_run_says_that_adapters_on_other_than_linear_layers_are_not_counted(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = save_model(tmp_path / "untied", "llama", seed=0, tied=False)
    adapters = ["student.lora.rank=1", "student.lora.targets=[embed_tokens,q_proj]"]
    run = ["train", f"conf={config}", f"run={tmp_path / 'run'}", *SETTINGS[1:]]
    assert cli_code([*run, f"student.model={student}", *adapters]) == 0
    assert "no FLOPs of updates" in capsys.readouterr().out
    last = costs(tmp_path / "run")[-1]
    assert math.isnan(last["update_flops_forward"])
    assert last["generate_flops_student"] > 0


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
    found = [(r.name, architecture(r.split), len(r.lengths)) for r in routed.reads([*ones, *items[1:]])]
    assert [(name, a.head, n) for name, a, n in found if a is not None] == [("one", 64 * 45, 1), ("two", 96 * 45, 2)]
    weighted = RoutedTeacher(teachers=teachers, weights={"one": 1, "two": 2}).start(pupil)
    assert [len(r.lengths) for r in weighted.reads(items)] == [3, 3]
    assert [len(r.lengths) for r in routed.reads([])] == [0, 0]


def test_a_teacher_is_counted_in_the_tokens_that_it_reads(teacher_dir: Path) -> None:
    pupil, items = Pupil(char_tokenizer(), 45), rollouts(SHAPES)
    scorer = LocalTeacher(model=str(teacher_dir), dtype="float32", system="be brief").start(pupil)
    (told,) = scorer.reads(items)
    assert told.lengths == [(len(scorer.read([r.prompt])[0]), len(r.tokens)) for r in items]
    assert told.lengths[0][0] > len("be brief")
    cross = CrossTeacher(model=str(teacher_dir), dtype="float32").start(pupil)
    assert [c for _, c in cross.reads(items)[0].lengths] == [len(cross.lexicon.translate(r).ids) for r in items]


def test_mixtures_in_mixtures_keep_who_wrote() -> None:
    names = ("sums", "other")
    asked = [
        replace(p, example=replace(p.example, task=name, completion="2"))
        for p, name in zip(prompts(char_tokenizer(), ["1+1", "2+2"]), names, strict=True)
    ]
    mixed = Mixed(parts={"own": StudentSource()}, shares={"own": 1})
    both = Mixed(parts={"a": ByTask(tasks={"sums": DatasetSource()}, others=mixed)}, shares={"a": 1})
    known = make_desk(tables()[0], tasks=dict.fromkeys(names, Arithmetic()))
    written = both.start(replace(known, tasks=frozenset(names))).sample(asked, Sampling(max_tokens=4, stop=(STOP,)))
    assert [(r.origin, r.writers) for r in written] == [("a", ()), ("a", ("student",))]


def test_gpus_of_engines_apart_are_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*settings: str, ranks: int = 1, gpus: str = "0,1,2,3") -> int:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        split = SimpleNamespace(head=SimpleNamespace(weight=SimpleNamespace(device=torch.device("cuda:0"))))
        student: Any = SimpleNamespace(split=split, team=SimpleNamespace(size=ranks))
        judges: Any = SimpleNamespace(models={})
        return Ledger(load("quickstart", settings).config, student, judges).devices

    assert held() == 1
    assert held("devices=ranks", "devices.ranks=4", ranks=4) == 4
    assert held("devices=apart", "devices.engines=3") == 4
    assert held("devices=apart", "devices.engines=2", "devices.ranks=2", ranks=2) == 4
    assert held("devices=apart", "devices.engines=2", gpus="0") == 1, "all share it"
