"""What is proven before the first step, and held at every one: pushes arrive, checkpoints can be written."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from opd.config.compose import load as load_config
from opd.learner.config import Lora, StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models.loading import stop_ids, tokenizer_of
from opd.preflight import at_another, given_at
from opd.run.checkpoint import checkpoints
from opd.run.metrics import read_metrics
from opd.run.rehearsal import rehearse
from opd.teachers.between import BetweenTeacher
from opd.teachers.cached import CachedTeacher
from opd.teachers.local import LocalTeacher
from opd.teachers.own import SelfTeacher
from opd.teachers.routed import RoutedTeacher
from opd.teachers.server import ServerTeacher
from opd.types import Pretrained, RunError
from tests.tiny import cli_code, save_model

FORGETFUL = "rollout._target_=tests.fakes.Forgetful"


def load(path: Path, **settings: Any) -> Student:
    torch.manual_seed(0)
    return Student.load(StudentConfig(model=str(path), dtype="float32", **settings), Optim(), 1.0)


@pytest.mark.parametrize("part", ["embed_tokens", "self_attn.v_proj", "mlp", "norm", "model.norm"])
def test_an_engine_that_keeps_old_weights_ends_before_step_1_and_leaves_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    run = tmp_path / "runs" / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", FORGETFUL, f"+rollout.keeps={part}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "rollout=tests.fakes.Forgetful does not take all weights of a Qwen3ForCausalLM" in line
    assert "rollout=hf" in line
    assert not run.exists()


def test_a_push_that_is_lost_in_mid_run_ends_it_and_names_the_last_good_checkpoint(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"  # three pushes before step 1, one after each step; the gap is found where it is sampled with
    lost = [FORGETFUL, "+rollout.keeps=layers", "+rollout.good_pushes=6", "optim.lr=0.05", "eval.every=0"]
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", *lost]) == 1
    line = capsys.readouterr().err.strip()
    assert "step 5: engine and learner disagree" in line
    assert str(run / "checkpoints" / "step_000004") in line
    assert [r["step"] for r in read_metrics(run / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    assert [c.step for c in checkpoints(run / "checkpoints")] == [2, 4]


def test_a_teacher_that_reads_nonsense_is_told_before_step_1_and_is_a_verdict(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["steps=1", "eval.every=0", "eval.size=2", "preflight.prompts=2", "log.exact_kl=false", "-q"]
    asked = ["train", f"conf={config}", *short, "objective=reverse_kl"]
    said = {}
    for name in ("ForeignTeacher", "DistantTeacher"):
        run = f"run={tmp_path / name}"
        assert cli_code([*asked, run, f"teacher._target_=tests.fakes.{name}"]) == 0
        lines = capsys.readouterr().err.splitlines()
        said[name] = [line for line in lines if "the teacher reads nonsense: " in line]
    before, after = said["ForeignTeacher"]
    assert ("nats a token before step 1." in before, "nats a token after 1 step." in after) == (True, True)
    assert said["DistantTeacher"] == []


def test_a_gap_that_somebody_allows_is_one(config: Path, tmp_path: Path) -> None:
    lost = [FORGETFUL, "+rollout.keeps=layers", "preflight.max_gap=50", "steps=2"]
    assert cli_code(["train", f"conf={config}", f"run={tmp_path / 'run'}", "-q", *lost]) == 0


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["all weights", "adapter"])
@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "mixtral"])
def test_another_model_has_all_its_weights_changed_and_comes_back_to_the_bit(
    tmp_path: Path, kind: str, lora: Lora | None
) -> None:
    if lora is not None and kind == "mixtral":
        lora = Lora(rank=2, targets=("q_proj", "v_proj"))
    student = load(save_model(tmp_path, kind, seed=0, tied=False), lora=lora)
    before = {name: tensor.clone() for name, tensor in student.weights()}
    with student.altered():
        inside = dict(student.weights())
        assert [n for n, t in before.items() if t.any() and torch.equal(inside[n], t)] == []
    after = dict(student.weights())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def try_saving(student: Student, path: Path, run: Path) -> None:
    model = Pretrained(str(path))
    tokenizer = tokenizer_of(model)
    rehearse(student, model, {}, tokenizer, stop_ids(model, tokenizer), run)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["all weights", "adapter"])
@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "mixtral"])
def test_a_checkpoint_is_written_read_back_and_removed(tmp_path: Path, kind: str, lora: Lora | None) -> None:
    if lora is not None and kind == "mixtral":
        lora = Lora(rank=2, targets=("q_proj", "v_proj"))
    folder = save_model(tmp_path / "model", kind, seed=0, tied=kind != "mixtral")
    try_saving(load(folder, lora=lora), folder, tmp_path / "runs" / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_checkpoint_that_cannot_be_written_or_lacks_something_is_one_line(student_dir: Path, tmp_path: Path) -> None:
    student = load(student_dir)
    write = student.model.save_pretrained

    def full(folder: Path, state_dict: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def lacking(folder: Path, state_dict: object) -> None:
        write(folder, state_dict={k: v for k, v in student.model.state_dict().items() if "layers.1" not in k})

    def other(folder: Path, state_dict: object) -> None:
        write(folder, state_dict={k: v + 1 for k, v in student.model.state_dict().items()})

    for save, problem in ((full, "No space left"), (lacking, "is missing"), (other, "is another tensor")):
        student.model.save_pretrained = save
        with pytest.raises(RunError, match=f"written and read back: .*{problem}.*nothing was trained"):
            try_saving(student, student_dir, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_generation_config_that_transformers_reads_and_does_not_write_is_made_one_that_it_does(
    config: Path, student_dir: Path, tmp_path: Path
) -> None:
    folder, run = shutil.copytree(student_dir, tmp_path / "student"), tmp_path / "run"
    path = folder / "generation_config.json"
    for wrong in ({"temperature": 0.6, "top_p": 0.9}, {"early_stopping": True, "length_penalty": 0.5}):
        own = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in own.items() if k.endswith("_id")} | wrong))
        arguments = [f"conf={config}", f"student.model={folder}", "steps=1", "-q"]
        assert cli_code(["train", *arguments, f"run={run}{len(wrong)}"]) == 0
        shutil.rmtree(f"{run}{len(wrong)}")


@pytest.mark.parametrize(("teacher", "reference"), [(1.0, 0.9), (0.9, 1.0), (0.9, 0.9)])
def test_another_temperature_is_told_where_teacher_or_reference_is_at_its_own(
    config: Path,
    teacher_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    teacher: float,
    reference: float,
) -> None:
    given = [f"conf={config}", f"run={tmp_path / 'run'}", "steps=1", "sampling.temperature=0.9"]
    second = ["+teacher@reference=local", f"reference.model={teacher_dir}", "reference.prompt=student"]
    temperatures = {"teacher": teacher, "reference": reference}
    own = [f"{name}.temperature={heat}" for name, heat in temperatures.items()]
    assert cli_code(["train", *given, *second, *own, "objective.extrapolate=1.1", "-q"]) == 0
    out = capsys.readouterr()
    for name, heat in temperatures.items():
        assert (f"with {name}.temperature=0.9 both are at the same one" in out.out + out.err) is (heat != 0.9)


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        (LocalTeacher(model="m", temperature=0.9), None),
        (LocalTeacher(model="m"), "with teacher.temperature=0.9 both"),
        (
            ServerTeacher(url="http://localhost"),
            "there is no teacher.temperature, and with sampling.temperature=1 both",
        ),
        (
            BetweenTeacher(teacher=LocalTeacher(model="m", temperature=0.9), near=SelfTeacher(), steps=3),
            "with teacher.near.temperature=0.9 both",
        ),
        (
            RoutedTeacher(teachers={n: LocalTeacher(model=n) for n in "abc"}, weights={"a": 1, "b": 1}),
            "with teacher.teachers.a.temperature=0.9 teacher.teachers.b.temperature=0.9 both",
        ),
        (RoutedTeacher(teachers={"a": LocalTeacher(model="a", temperature=0.9)}, routes={"x": "a"}), None),
        *(
            (CachedTeacher(teacher=LocalTeacher(model="m"), path="p", readonly=only), "with teacher.teacher.temp")
            for only in (False, True)
        ),
    ],
)
def test_the_temperature_of_every_teacher_that_is_listened_to_counts(teacher: object, says: str | None) -> None:
    assert at_another("teacher", teacher, 1.0) == []
    said = at_another("teacher", teacher, 0.9)
    assert len(said) == (says is not None)
    assert all(str(says) in line and "sampling.temperature=0.9: the student" in line for line in said)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["sft"], True),
        (["sft", "source=teacher"], False),
        (["gkd"], False),
        (["quickstart"], False),
    ],
)
def test_what_a_dataset_gives_is_said_to_be_learned_at_the_temperature_of_sampling(
    given: list[str], says: bool
) -> None:
    cfg = load_config(given[0], given[1:]).config
    assert given_at(cfg, 1.0) == []
    assert [("learns the dataset's completions" in line) for line in given_at(cfg, 0.7)] == [True] * says
