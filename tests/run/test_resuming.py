"""What a checkpoint holds and what a run needs are compared by name: nothing that is missing begins at zero."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from opd.run import manifest
from opd.run.metrics import read_metrics
from opd.teachers.local import LocalTeacher
from tests.run.test_checkpoint import changed, older
from tests.tiny import cli_code, save_config

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> Path:
    """A finished run of two steps with a moving average."""
    folder = tmp_path_factory.mktemp("whole")
    config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
    config.write_text(config.read_text().replace("  - _self_", "  - override teacher: self_ema\n  - _self_"))
    lines = [line for line in config.read_text().splitlines() if not line.startswith("teacher:")]
    config.write_text("\n".join([*lines, "teacher: {decay: 0.9, context: '{prompt} 1'}"]))
    short = ["steps=2", "eval.every=0", "eval.size=2", "preflight.prompts=2"]
    assert cli_code(["train", f"conf={config}", f"run={folder / 'run'}", "-q", *short]) == 0
    return folder / "run"


def exchange(model: Path) -> None:
    """Put another model into the place of one: each weight is twice what it was."""
    file = model / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda held: {key: tensor for key, tensor in held.items() if key != name}


def with_(name: str, tensor: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda held: held | {name: tensor}


def lost_weight(held: Tensors) -> Tensors:
    """All of what the optimizer has kept of one weight."""
    return {key: tensor for key, tensor in held.items() if not key.startswith("2.")}


NAN = torch.full((64, 128), float("nan"))
EMBEDDING, UP = "model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"
CHANGES = {
    "a step": ("optimizer", without("0.step"), f"lacks step of {EMBEDDING}"),
    "a mean": ("optimizer", without("3.exp_avg"), "lacks exp_avg of model.layers.0"),
    "a weight": ("optimizer", lost_weight, "lacks exp_avg of model.layers.0"),
    "everything": ("optimizer", lambda held: {"odd": torch.zeros(1)}, f"lacks exp_avg of {EMBEDDING}"),
    "another's": ("optimizer", with_("999.exp_avg", torch.zeros(1)), "is of another student (999.exp_avg"),
    "another kind": ("optimizer", with_("0.momentum", torch.zeros(1)), "is of another student (0.momentum"),
    "another shape": ("optimizer", with_("0.exp_avg", torch.zeros(3, 5)), "is of another student (0.exp_avg"),
    "a shaped step": ("optimizer", with_("0.step", torch.zeros(3)), "is of another student (0.step"),
    "an infinite mean": ("optimizer", lambda held: held | {"0.exp_avg": held["0.exp_avg"] / 0}, "is not finite"),
    "no random state": ("random", with_("cpu", torch.zeros(3, dtype=torch.uint8)), "there is no going on from it"),
    "no cpu": ("random", lambda held: {"gpu": held["cpu"]}, "lacks cpu"),
    "a lost average": ("teacher", without(UP), f"lacks '{UP}'"),
    "a bent average": ("teacher", with_(UP, torch.zeros(1, 64)), f"({UP} is [1, 64], and the weight is [128, 64])"),
    "one average more": ("teacher", with_("odd", torch.zeros(1)), "(there is no weight odd)"),
    "no number": ("teacher", with_(UP, NAN.T.contiguous()), f"({UP} (8192 of 8192 numbers, NaN) is not finite)"),
    "no steps": ("teacher", without("steps"), "lacks 'steps'"),
    "a lost weight": ("model/model", without(UP), f"its weights lack {UP}"),
    "a bent weight": ("model/model", with_(UP, torch.zeros(1, 64)), f"its weights have {UP} as [1, 64]"),
    "an unknown bias": ("model/model", with_(f"{UP[:-6]}bias", torch.zeros(128)), f"its weights have {UP[:-6]}bias"),
    "a weight of NaN": ("model/model", with_(UP, NAN.T.contiguous()), f"{UP} (8192 of 8192 numbers, NaN) is not"),
}  # fmt: skip


@pytest.mark.parametrize("when", ["proven", "unproven"])
@pytest.mark.parametrize("what", CHANGES)
def test_what_does_not_fit_is_refused_by_name_and_changes_nothing(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, when: str
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    place, (file, change, says) = run / "checkpoints" / "step_000002", CHANGES[what]
    file = place / f"{file}.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    older(run) if when == "unproven" else manifest.write(place)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=3"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in line
    assert str(place) in line
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "state", [{"python_random": None}, {"python_random": [3, [1], None]}, {"optimizer_steps": "four"}, {"base": []}]
)
def test_a_state_that_cannot_be_restored_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: dict[str, object]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    changed(run / "checkpoints" / "step_000002", **state)
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=3"]) == 2
    assert "step_000002" in capsys.readouterr().err


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew_in_its_own_folder(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("checkpoints", "ended.json"))
    (run / ".owner").write_text("1 elsewhere\n")
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == 2, "it has come to steps that were not saved"
    assert cli_code(["train", f"run={run}", f"conf={run / 'config.yaml'}"]) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert cli_code(["train", "--resume", f"run={run}", "-q"]) == 0
    assert f"run={run}: it has no checkpoint yet, and begins anew" in capsys.readouterr().err
    rows, before = (read_metrics(at / "metrics.jsonl") for at in (run, whole))
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert [row.get("kl/exact") for row in rows] == [row.get("kl/exact") for row in before]
    model = Path("checkpoints", "step_000002", "model", "model.safetensors")
    anew, once = (load_file(at / model) for at in (run, whole))
    assert all(torch.equal(anew[name], once[name]) for name in once)


def test_a_teacher_that_was_exchanged_meanwhile_is_told_of_once(
    tmp_path: Path, teacher_dir: Path, student_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, run = shutil.copytree(teacher_dir, tmp_path / "teacher"), tmp_path / "run"
    conf = save_config(tmp_path / "tiny.yaml", student_dir, teacher)
    short = ["-q", "eval.every=0", "eval.size=2", "preflight.prompts=2"]
    said = "warning: teacher: this is not the model that judged the first"

    def resumed(steps: int) -> bool:
        capsys.readouterr()
        assert cli_code(["train", "--resume", f"run={run}", "-q", f"steps={steps}"]) == 0
        return said in capsys.readouterr().err

    assert cli_code(["train", f"conf={conf}", f"run={run}", "steps=1", *short]) == 0
    assert not resumed(2)
    exchange(teacher)
    assert [resumed(3), resumed(4)] == [True, False]
    (run / "env.json").write_text("[")
    assert not resumed(5)


def test_a_student_whose_first_model_was_exchanged_is_told_of_where_that_is_measured(
    tmp_path: Path, teacher_dir: Path, student_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, run = shutil.copytree(student_dir, tmp_path / "student"), tmp_path / "run"
    conf = save_config(tmp_path / "tiny.yaml", student, teacher_dir)
    short = ["-q", "eval.every=0", "eval.size=2", "preflight.prompts=2"]
    said = f"warning: student.model={student}: this is not the model that the run began with"

    def told(*command: str) -> bool:
        capsys.readouterr()
        assert cli_code([*command, f"run={run}"]) == 0
        return said in capsys.readouterr().err

    assert cli_code(["train", f"conf={conf}", f"run={run}", "steps=1", *short]) == 0
    assert not told("eval", "-q")
    exchange(student)
    assert told("eval", "-q")
    assert told("sample", "--compare", "-p", "1+1=")
    assert not told("sample", "-p", "1+1="), "it plays no part"
    assert not told("train", "--resume", "-q", "steps=2")
    assert told("eval", "-q"), "a run that went on began with the same"


def test_one_of_several_teachers_that_was_exchanged_meanwhile_is_named(
    tmp_path: Path, teacher_dir: Path, student_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, run = shutil.copytree(teacher_dir, tmp_path / "teacher"), tmp_path / "run"
    conf = save_config(tmp_path / "tiny.yaml", student_dir, teacher)
    own = f"_target_: {LocalTeacher.__module__}.LocalTeacher, dtype: float32"
    both = f"{{easy: {{{own}, model: {teacher}}}, hard: {{{own}, model: {student_dir}}}}}"
    several = ["teacher=routed", f"teacher.teachers={both}", "teacher.default=easy"]
    config = conf.read_text().replace(f"teacher: {{model: {teacher}, dtype: float32, prompt: student}}\n", "")
    conf.write_text(config)
    short = ["-q", "eval.every=0", "eval.size=2", "preflight.prompts=2", "teacher.routes={other: hard}"]
    assert cli_code(["train", f"conf={conf}", f"run={run}", "steps=1", *short, *several]) == 0
    exchange(teacher)
    capsys.readouterr()
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=2"]) == 0
    assert capsys.readouterr().err.count("teacher.teachers.easy: this is not the model that judged the first") == 1


def test_data_that_was_changed_meanwhile_is_told_of_once_by_its_task_and_file(
    tmp_path: Path, teacher_dir: Path, student_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, run = tmp_path / "rows.jsonl", tmp_path / "run"
    conf = save_config(tmp_path / "tiny.yaml", student_dir, teacher_dir)

    def save(sign: str) -> None:
        rows.write_text("".join(f'{{"prompt": "{i}{sign}{i}", "answer": "{i}"}}\n' for i in range(30)))

    def told(*typed: str) -> list[str]:
        capsys.readouterr()
        assert cli_code(["train", f"run={run}", "-q", *typed]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "this is not the data of" in line]

    save("+")
    task = f"+data.tasks.mine={{_target_: opd.tasks.exact_match.ExactMatch, path: {rows}}}"
    assert told(f"conf={conf}", "steps=1", "eval.every=0", "eval.size=2", "preflight.prompts=2", task) == []
    assert told("--resume", "steps=2") == []
    save("*")
    (line,) = told("--resume", "steps=3")
    assert f"data.tasks.mine.path={rows}: this is not the data of the first 2 steps" in line
    assert told("--resume", "steps=4") == []
    (run / "env.json").unlink()
    save("+")
    assert told("--resume", "steps=5") == []


@pytest.mark.parametrize(("edit", "typed", "said"), [
    (("lr: 0.003", "lr: 0.001"), [], "optim.lr=0.001 (it was 0.003)"),
    (("temperature: 1.0\n", "temperature: 0.5\n"), ["optim.lr=0.01"], "teacher.temperature=0.5 (it was 1.0)"),
    (("name: tiny", "name: tiny"), ["optim.lr=0.01"], ""),
])  # fmt: skip
def test_a_config_that_was_edited_before_the_run_goes_on_is_told_of_with_what_is_other(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: tuple[str, str], typed: list[str], said: str
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    assert edit[0] in text
    (run / "config.yaml").write_text(text.replace(*edit, 1))
    assert cli_code(["train", "--resume", f"run={run}", "steps=3", *typed]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert ("config.yaml is not what step_000002 was written with: " + said in shown) == bool(said)
    assert ("is not what" in shown) == bool(said)
    assert cli_code(["train", "--resume", f"run={run}", "steps=4"]) == 0  # which goes on with what was told of
    assert "is not what" not in capsys.readouterr().err
