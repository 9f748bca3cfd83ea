"""The command line: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from opd import cli
from opd.config.arguments import complete, split_settings
from opd.config.catalog import shipped
from opd.types import RunError, UserError

TINY = """# A tiny run.
defaults: [base, {override data: arithmetic}, _self_]
name: tiny
steps: 6
student: {model: s}
teacher: {model: t}
sampling: {max_tokens: 12}
"""
Opd = Callable[..., tuple[int, str, str]]


@pytest.fixture
def opd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Opd:
    """Run a command in an empty folder that holds tiny.yaml; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main(list(arguments))
        except SystemExit as e:
            code = int(e.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def run(opd: Opd, tmp_path: Path) -> Path:
    """A run directory with checkpoints of steps 2 and 4, as far as listing them goes."""
    folder = tmp_path / "runs" / "tiny-1"
    folder.mkdir(parents=True)
    _, out, _ = opd("config", "show", "tiny.yaml")
    (folder / "config.yaml").write_text(out)
    for step in (2, 4):
        checkpoint = folder / "checkpoints" / f"step_{step:06d}"
        (checkpoint / "model").mkdir(parents=True)
        (checkpoint / "model" / "config.json").write_text("{}")
        state = {"step": step, "optimizer_steps": 0, "python_random": random.getstate()}
        (checkpoint / "state.json").write_text(json.dumps(state))
        for name in ("optimizer", "random", "model/model"):
            save_file({"cpu": torch.get_rng_state()}, checkpoint / f"{name}.safetensors")
    return folder


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_and_lists_need_neither_torch_nor_hydra() -> None:
    code = (
        "import sys; from opd import cli\n"
        "for command in (['--help'], ['train', '--help'], ['config', 'ls'], ['version']):\n"
        "    try: cli.main(command)\n"
        "    except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'hydra', 'omegaconf', 'vllm', 'numpy') if m in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "[]"


MISTYPED = """
import sys
sys.modules |= dict.fromkeys(("torch", "transformers", "vllm", "peft"))  # whoever imports one gets an error
from opd import cli
for arguments in %s:
    try: cli.main(arguments)
    except SystemExit as error: print(error.code, file=sys.stderr)
"""
RUN = "run=runs/tiny-1"
TYPED = (
    *(["train", "conf=tiny.yaml", wrong] for wrong in (
        "optm.lr=1", "optim.lrr=1", "optim.lr=-1", "student.modl=s", "student.lora={rnk: 3}", "teacher.quant=int8",
        "rollout.sleeep=true", "rollout=vlm", "data.shufle=true", "data.tasks.arithmetic.terms=[a]", "sampling.top_p=2",
        "eval.evry=3", "devices.rank=2", "source.of=1", "log.trackers=1", "checkpoint.keeep=1", "steps=many",
    )),
    *(["export", *wrong] for wrong in (
        ["--format", "zip"], ["--dtype", "int8"], ["--quantize", "q8_0"], ["--adapter", "--format", "gguf"],
        [RUN, "a=1"],
    )),
    ["plan", "conf=tiny.yaml", "--gpu", "h10"], ["plan", "conf=tiny.yaml", "optim.lrr=1"],
    ["eval", RUN, "eval.siz=3"], ["sample", RUN, "optim.lrr=1"], ["chat", RUN, "-p", "1", "data.systm=3"],
)  # fmt: skip


def test_a_mistake_in_what_is_typed_is_told_without_what_takes_seconds_to_import(run: Path) -> None:
    code = MISTYPED % repr(list(TYPED))
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=run.parents[1])
    lines = told.stderr.splitlines()
    assert lines[1::2] == ["2"] * len(TYPED), told.stderr
    assert [line for line in lines[::2] if not line.startswith("opd: ") or "torch" in line] == []


@pytest.mark.slow
def test_help_answers_within_half_a_second_of_a_core() -> None:
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "opd", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_every_command_has_a_help_text(opd: Opd) -> None:
    for command in (
        "train",
        "eval",
        "export",
        "sample",
        "chat",
        "report",
        "runs",
        "diff",
        "doctor",
        "version",
        "config ls",
        "config show",
        "config cp",
    ):
        code, out, _ = opd(*command.split(), "--help")
        assert code == 0
        assert len(out.splitlines()[2].strip()) > 5


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_version_prints_the_version(opd: Opd, asked: str) -> None:
    code, out, _ = opd(asked)
    assert (code, out.count(".")) == (0, 2)


def test_the_list_of_configs_says_what_each_is(opd: Opd) -> None:
    _, out, _ = opd("config", "ls")
    assert [line.split()[0] for line in out.splitlines()] == list(shipped())
    assert json.loads(opd("config", "ls", "--json")[1]) == shipped()


def test_a_config_is_shown_with_overrides_and_defaults(opd: Opd) -> None:
    code, out, _ = opd("config", "show", "tiny.yaml", "optim.lr=3e-5", "rollout=hf", "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["optim"]["lr"] == 3e-5
    assert shown["optim"]["eps"] == 1e-8
    assert shown["rollout"]["_target_"] == "opd.rollout.hf.Hf"
    assert "${" not in out
    assert "lr: 3.0e-05" in opd("config", "show", "conf=tiny.yaml", "optim.lr=3e-5")[1]


def test_a_copied_config_works_from_any_folder(opd: Opd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = opd("config", "cp", "smollm2", "mine.yaml")
    assert code == 0
    assert "conf=mine.yaml" in out
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    original, copy = opd("config", "show", "smollm2")[1], opd("config", "show", "../mine.yaml")[1]
    assert copy == original


@pytest.mark.parametrize(
    ("name", "file", "says"),
    [
        ("smollm2", "tiny.yaml", "already"),
        ("smollm2", "x.txt", ".yaml"),
        ("smollm2", "no/x.yaml", "no folder"),
        ("smolm2", "x.yaml", "did you mean smollm2?"),
    ],
)
def test_a_copy_that_cannot_be_made_is_refused(name: str, file: str, says: str, opd: Opd) -> None:
    code, _, err = opd("config", "cp", name, file)
    assert code == 2
    assert says in err
    assert Path("tiny.yaml").read_text() == TINY
    assert not Path("x.yaml").exists()


def test_a_dry_run_prints_config_and_plan_and_writes_nothing(opd: Opd) -> None:
    code, out, err = opd("train", "conf=tiny.yaml", "steps=9", "--dry-run")
    assert (code, err) == (0, "")
    assert "steps: 9" in out
    assert "plan: 9 steps" in out
    assert [p.name for p in Path.cwd().iterdir()] == ["tiny.yaml"]


REFUSED = [
    (["train"], "conf:", "there are"),
    (["train", "conf=tiny.yaml", "optim.lrr=1"], "optim.lrr=1:", "did you mean lr?"),
    (["train", "conf=tiny.yaml", "teacher=serverr"], "teacher=serverr:", "there are"),
    (["train", "conf=tiny.yaml", "steps"], "steps:", "KEY=VALUE"),
    (["train", "conf=tiny.yaml", "conf=tiny.yaml"], "conf=tiny.yaml:", "given too"),
    (["train", "conf=tiny.yaml", "optim.lr=1,2"], "optim.lr=1,2:", "--multirun"),
    (["train", "conf=tiny.yaml", "run=full"], "run=full:", "holds no run; name another one"),
    (["train", "conf=tiny.yaml", "run=tiny.yaml"], "run=tiny.yaml:", "file"),
    (["train", "conf=tiny.yaml", "run="], "run=:", "must be given"),
    (["train", "conf=tiny.yaml", "step=3"], "step=3:", "did you mean steps?"),
    (["train", "conf="], "conf=:", "must be given"),
    (["train", "--resume"], "there is no run", "runs/"),
    (["train", "--resume", "run=nope"], "run=nope:", "config.yaml"),
    (["train", "--resume", "conf=tiny.yaml"], "conf=tiny.yaml:", "--resume"),
    (["train", "--multirun"], "conf:", "there are"),
    (["train", "--multirun", "conf=tiny.yaml", "run=x"], "run=x:", "share"),
    (["train", "--multirun", "--resume", "conf=tiny.yaml"], "--resume:", "--multirun"),
    (["train", "--multirun", "conf=tiny.yaml", "optim.lr=1e-4,x"], "optim.lr=x:", "number"),
    (["train", "--multirun", "conf=tiny.yaml", "rollout=glob(*)"], "rollout=glob(*):", "commas"),
    (["eval"], "there is no run", "runs/"),
    (["eval", "run=nope"], "run=nope:", "config.yaml"),
    (["eval", "model=m"], "model=m:", "conf="),
    (["eval", "model=m", "conf=tiny.yaml", "step=2"], "step=2:", "model=m"),
    (["eval", "conf=tiny.yaml"], "conf=tiny.yaml:", "model="),
    (["eval", "model=m", "conf=tiny.yaml", "eval.k=[3]"], "eval.k=[3]:", "eval.n=1"),
    (["sample", "run=nope"], "run=nope:", "config.yaml"),
    (["export", "run=nope"], "run=nope:", "config.yaml"),
    (["report"], "there is no run", "runs/"),
    (["report", "nope"], "run=nope:", "config.yaml"),
    (["report", "nope", "--debug"], "run=nope:", "config.yaml"),
    (["report", "full"], "run=full:", "config.yaml"),
    (["config", "show", "tiny.yaml", "steps=x"], "steps=x:", "whole number"),
]


@pytest.mark.parametrize(("arguments", "start", "says"), REFUSED)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], start: str, says: str, opd: Opd) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("")
    code, out, err = opd(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"opd: {start}")
    assert says in err
    assert err.count("\n") == 1
    assert sorted(p.name for p in Path.cwd().rglob("*")) == ["file", "full", "tiny.yaml"]


@pytest.mark.parametrize(("command", "says"), [(["trian"], "train"), (["train", "--resum"], "--resume")])
def test_a_misspelt_command_or_option_gets_a_hint(command: list[str], says: str, opd: Opd) -> None:
    code, _, err = opd(*command)
    assert code == 2
    assert says in err


@pytest.mark.parametrize("command", ["eval", "export", "sample"])
def test_a_step_without_a_checkpoint_is_refused_with_those_there_are(command: str, opd: Opd, run: Path) -> None:
    code, _, err = opd(command, f"run={run}", "step=3")
    assert code == 2
    assert "step=3:" in err
    assert "2, 4" in err


def test_a_run_without_a_step_has_no_report(opd: Opd, run: Path) -> None:
    for arguments in ([], [str(run)]):
        code, out, err = opd("report", *arguments)
        assert (code, out, err.count("opd: "), err.count("the newest run")) == (2, "", 1, not arguments)
        assert "it has no step yet" in err
    assert not (run / "report.html").exists()


def test_a_run_whose_checkpoints_are_damaged_or_links_is_not_resumed_and_one_without_any_begins_anew(
    opd: Opd, run: Path
) -> None:
    for step in (2, 4):
        (run / "checkpoints" / f"step_{step:06d}" / "state.json").write_text("{")
    code, _, err = opd("train", "--resume", f"run={run}")
    assert (code, err.startswith(f"opd: run={run}: there is no checkpoint to go on from; ")) == (2, True)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step_000002").symlink_to(run)
    code, _, err = opd("train", "--resume", f"run={run}")
    assert (code, "or another's), and is not read; put back what was changed, or move " in err) == (2, True)
    shutil.rmtree(run / "checkpoints")
    code, out, _ = opd("train", "--resume", f"run={run}", "--dry-run")
    assert (code, f"  run        {run}\n" in out) == (0, True)


def test_what_a_folder_holds_decides_what_is_advised(opd: Opd, run: Path) -> None:
    assert "go on with --resume" in opd("train", "conf=tiny.yaml", f"run={run}")[2]
    (run / "config.yaml").unlink()
    assert "holds no run; name another one" in opd("train", "conf=tiny.yaml", f"run={run}")[2]


def test_resuming_takes_the_runs_own_config_and_overrides(opd: Opd, run: Path) -> None:
    code, out, _ = opd("train", "--resume", f"run={run}", "steps=50", "rollout=hf", "--dry-run")
    assert code == 0
    assert "plan: 50 steps" in out
    assert "Hf" in out
    assert f"run        {run}" in out
    assert "plan: 7 steps" in opd("train", "--resume", f"runs={run.parent}", "steps=7", "--dry-run")[1]
    assert "optim.lrr" in opd("train", "--resume", f"run={run}", "optim.lrr=1")[2]


def test_resuming_a_finished_run_does_nothing(opd: Opd, run: Path) -> None:
    code, out, err = opd("train", "--resume", f"run={run}", "steps=4")
    assert (code, err) == (0, "")
    assert "steps=4: 4 are taken, and there is nothing left to do" in out
    assert f"done: {run}" in out
    assert "optim.lr=1: no step is left" in opd("train", "--resume", f"run={run}", "steps=2", "optim.lr=1")[2]
    assert not (run / "metrics.jsonl").exists()


def test_a_misspelt_run_gets_the_nearest_one(opd: Opd, run: Path) -> None:
    assert "did you mean runs/tiny-1?" in opd("eval", "run=runs/tinny-1")[2]


def test_what_is_named_is_parted_from_overrides() -> None:
    settings = ["conf=x", "optim.lr=1", "run=a=b", "~log"]
    assert split_settings(settings, {"conf", "run"}) == ({"conf": "x", "run": "a=b"}, ["optim.lr=1", "~log"])


def test_completion_offers_configs_and_group_files() -> None:
    assert complete("conf=smo") == ["conf=smollm2", "conf=smollm2_from_gemma"]
    assert complete("rollout=") == ["rollout=hf", "rollout=vllm", "rollout=vllm_tiny"]
    assert "teacher=" in complete("")
    assert complete("optim.lr=") == []


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("a\nb"), 2, "a b"),
        (RunError("loss"), 1, "loss"),
        (ZeroDivisionError("x"), 1, "internal error, ZeroDivisionError: x; see it with --debug"),
        (KeyboardInterrupt(), 130, "aborted"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    error: BaseException, code: int, says: str, opd: Opd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr("opd.commands.doctor.check_all", broken)
    found, _, err = opd("doctor")
    assert found == code
    assert err == f"opd: {says}\n" or (code == 130 and says in err)


def test_debug_shows_the_traceback(opd: Opd, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("opd.commands.train.plan.draft", broken)
    with pytest.raises(ZeroDivisionError):
        opd("train", "conf=tiny.yaml", "--debug")
