"""The Python API: what the command line does, for notebooks and scripts."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import opd
from opd.objectives import ReverseKL
from tests.tiny import cli_code


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> opd.Run:
    from tests.tiny import save_config

    folder = tmp_path_factory.mktemp("api")
    return opd.train(
        save_config(folder / "tiny.yaml", student_dir, teacher_dir), "steps=2", run=folder / "run", quiet=True
    )


def test_importing_it_brings_no_torch() -> None:
    code = (
        "import sys, opd; opd.compose, opd.UserError; dir(opd)\n"
        "print([m for m in ('torch', 'hydra', 'pandas', 'vllm', 'typer') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_every_name_is_there_and_has_a_docstring() -> None:
    for name in opd.__all__:
        assert getattr(opd, name).__doc__
    assert set(opd.__all__) <= set(dir(opd))
    with pytest.raises(AttributeError, match="nothing"):
        opd.nothing  # noqa: B018


def test_a_config_is_composed_as_on_the_command_line() -> None:
    made = opd.compose("quickstart", "steps=7", "optim.lr=1e-5")
    assert (made.config.steps, made.config.optim.lr) == (7, 1e-5)


def test_a_run_is_read_as_rows_and_as_frames(run: opd.Run) -> None:
    assert [row["step"] for row in run.metrics] == [0, 1, 2]
    frame = run.metrics.frame()
    assert list(frame["step"]) == [0, 1, 2]
    assert frame["kl/sampled"].iloc[-1] == run.metrics[-1]["kl/sampled"]
    assert [row["name"] for row in run.evaluations] == ["student, step 0", "student, step 2"]
    assert run.steps == [1, 2]
    completions = run.rollouts(2)
    assert len(completions) == 16
    assert {"prompt", "completion", "reward", "tokens", "logprobs", "teacher_logprobs"} <= completions[0].keys()
    assert len(completions.frame()) == 16
    assert run.checkpoints == [2]
    assert run.config.steps == 2


def test_a_run_is_evaluated_exported_sampled_and_loaded(run: opd.Run) -> None:
    rows = opd.evaluate(run, quiet=True)
    assert list(rows) == ["student before", "student after 2 steps", "teacher"]
    assert {"final_before", "final_after", "final_teacher"} <= {row["file"] for row in run.evaluations}
    written = opd.export(run, dtype="float32", quiet=True)
    assert (Path(written["path"]) / "model.safetensors").is_file()
    answers = opd.sample(run, ["1+2="], n=3, max_tokens=4)
    assert [row["prompt"] for row in answers] == ["1+2="] * 3
    assert opd.load_run(run.path) == opd.load_run(runs=run.path.parent) == run


def test_prompts_that_a_run_was_trained_on_are_not_called_held_out_without_a_word(
    run: opd.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "{i}+1=", "answer": "{i + 1}"}}\n' for i in range(80)))
    given = (f"data={rows}", "data.tasks.rows.eval_fraction=0.2")
    made = opd.train(
        opd.compose(run.folder.config, *given, "steps=1", "eval.every=0"), run=tmp_path / "run", quiet=True
    )
    capsys.readouterr()
    opd.evaluate(made, quiet=True)
    opd.evaluate(made, given[0], "data.tasks.rows.eval_fraction=0.1", quiet=True)
    assert "trained on" not in capsys.readouterr().err
    opd.evaluate(made, "data.tasks.rows.eval_fraction=0.9", quiet=True)
    assert "that the run was trained on" in " ".join(capsys.readouterr().err.split())


def test_a_run_goes_on_and_is_the_run_that_was_never_stopped(run: opd.Run, tmp_path: Path) -> None:
    whole = opd.train(opd.compose(run.folder.config, "steps=3"), run=tmp_path / "whole", quiet=True)
    half = opd.train(opd.compose(run.folder.config), run=tmp_path / "half", quiet=True)
    gone_on = opd.resume(half, "steps=3", quiet=True)
    assert gone_on.metrics[-1]["kl/sampled"] == whole.metrics[-1]["kl/sampled"]


def test_mistakes_are_exceptions_with_the_command_lines_words(run: opd.Run, capsys: pytest.CaptureFixture[str]) -> None:
    for call, command in [
        (lambda: opd.compose("quickstrat"), ["config", "show", "quickstrat"]),
        (lambda: opd.train("quickstart", "optim.lrr=1"), ["train", "conf=quickstart", "optim.lrr=1"]),
        (lambda: opd.evaluate(run, step=7), ["eval", f"run={run.path}", "step=7"]),
        (lambda: opd.export(run, dtype="int3"), ["export", f"run={run.path}", "--dtype", "int3"]),
        (lambda: opd.load_run("nowhere"), ["export", "run=nowhere"]),
        (lambda: opd.train(run.folder.config, run=run.path), ["train", f"conf={run.folder.config}", f"run={run.path}"]),
    ]:
        with pytest.raises(opd.UserError) as caught:
            call()
        assert cli_code(command) == 2
        assert " ".join(str(caught.value).split()) in capsys.readouterr().err


@pytest.mark.parametrize(("given", "said"), [
    ({"n": "2"}, r"n=2: allowed is a whole number from 1"), ({"n": 1.5}, r"n=1\.5: allowed is a whole number from 1"),
    ({"temperature": None}, "temperature=null: allowed is a number from 0"),
    ({"prompts": [[{"role": "user", "content": "1+2="}]]}, "prompts: .*allowed are texts"),
])  # fmt: skip
def test_what_no_model_can_be_asked_is_a_mistake(run: opd.Run, given: dict[str, Any], said: str) -> None:
    with pytest.raises(opd.UserError, match=said):
        opd.sample(run, **{"prompts": "1+2=", **given})


@dataclass(frozen=True, kw_only=True)
class Bolder(ReverseKL):
    """Twice the advantage."""

    coef: float = 2.0


def test_parts_may_be_given_as_objects_and_the_run_goes_on_with_them(run: opd.Run, tmp_path: Path) -> None:
    made = opd.compose(run.folder.config, "steps=1", objective=Bolder())
    own = opd.train(made, run=tmp_path / "own", quiet=True)
    assert own.config.objective == Bolder()
    assert len(opd.resume(own, "steps=2", quiet=True).metrics) == 3
    data = replace(made.config.data, prompts_per_step=2)
    assert opd.compose(run.folder.config, data=data).settings["data"]["prompts_per_step"] == 2
    with pytest.raises(opd.UserError, match="objektive: no such part of a config, did you mean objective"):
        opd.compose(run.folder.config, objektive=Bolder())
    with pytest.raises(opd.UserError, match="steps_per_batch"):
        opd.compose(run.folder.config, optim=replace(made.config.optim, steps_per_batch=1000))


def test_a_class_of_the_script_that_runs_is_named_by_its_file(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import opd\nfrom dataclasses import dataclass\nfrom opd.objectives import ReverseKL\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(ReverseKL):\n    pass\n"
        "if __name__ == '__main__':\n"
        "    print(opd.compose('quickstart', objective=Mine()).settings['objective']['_target_'])\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout == "mine.Mine\n"


def test_a_run_may_be_started_from_another_thread(run: opd.Run, tmp_path: Path) -> None:
    done: list[opd.Run] = []
    made = opd.compose(run.folder.config, "steps=1")
    worker = threading.Thread(target=lambda: done.append(opd.train(made, run=tmp_path / "run", quiet=True)))
    worker.start()
    worker.join()
    assert len(done[0].metrics) == 2


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"steps": 0}, "steps=0: allowed is a whole number from 1"),
        ({"eval": {"every": -1}}, "eval.every=-1: allowed"),
        ({"log": None}, "log=null: allowed is"),
        ({"objective": "sft"}, "objective=sft: allowed is a mapping whose _target_ is of the kind Objective"),
        ({"objective": ReverseKL}, "objective=.*cannot be written into the run's config.yaml"),
        ({"teacher": None}, "teacher=null: allowed"),
        ({"objective": Bolder(coef=lambda: 1)}, "objective.coef=.*cannot be written"),
    ],
)
def test_a_part_that_is_none_is_refused_with_its_name(run: opd.Run, parts: dict[str, object], said: str) -> None:
    with pytest.raises(opd.UserError, match=said):
        opd.compose(run.folder.config, **parts)


def test_a_class_that_could_not_be_found_again_is_refused(run: opd.Run) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Inner(ReverseKL):
        pass

    with pytest.raises(opd.UserError, match="inside of a function"):
        opd.compose(run.folder.config, objective=Inner())
    with pytest.raises(opd.UserError, match=r"objective.coef=3: objective is given as an object too"):
        opd.compose(run.folder.config, "objective.coef=3", objective=Bolder())


def test_a_script_without_a_guard_is_run_once(run: opd.Run, tmp_path: Path) -> None:
    script = tmp_path / "once.py"
    script.write_text(
        "import opd\nfrom dataclasses import dataclass\nfrom opd.objectives import ReverseKL\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(ReverseKL):\n    pass\n"
        "print('running')\n"
        f"made = opd.compose({str(run.folder.config)!r}, 'steps=1', 'runs=here', objective=Mine())\n"
        "run = opd.train(made, quiet=True)\n"
        "print(type(run.config.objective) is Mine, run.path.is_absolute())\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    lines = found.stdout.splitlines()
    assert (lines[0], lines[-1], lines.count("running")) == ("running", "True True", 1)


def test_wrong_arguments_are_told_and_not_tracebacks(run: opd.Run) -> None:
    made = opd.compose(run.folder.config)
    for call in (
        lambda: opd.train(made.config),
        lambda: opd.train(123),
        lambda: opd.train(made, "steps=3"),
        lambda: opd.compose(made),
        lambda: opd.compose("quickstart", ["steps=1"]),
        lambda: opd.sample(run, "1+1=", n=0),
        lambda: opd.sample(run, "1+1=", temperature=-1),
        lambda: opd.sample(run, "1+1=", max_tokens=0),
    ):
        with pytest.raises(opd.UserError):
            call()
    assert [row["prompt"] for row in opd.sample(run, "1+1=")] == ["1+1="]
    assert opd.load_run(run) == run
