"""`opd new`: what it writes works as it is, is named like nothing else, and goes over nothing."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opd.commands.new import GROUPS, texts
from opd.config.compose import load
from opd.run.metrics import read_metrics
from tests.tiny import cli_code

KINDS = list(GROUPS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, out of which modules are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("made_")]:
        del sys.modules[name]


def settings() -> list[str]:
    """All four parts in one run."""
    return [f"{group}=made_{kind}.yaml" for kind, group in GROUPS.items()]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_says_nothing_of_what_it_was_made_from(kind: str) -> None:
    files = texts(kind, "my_own")
    assert list(files) == ["my_own.py", "my_own.yaml", "test_my_own.py"]
    whole = "".join(files.values())
    assert "tarter" not in whole
    assert f"{kind}.yaml" not in whole
    assert "class MyOwn:" in files["my_own.py"]


def test_all_four_are_put_together_and_their_own_tests_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        assert cli_code(["new", kind, f"made_{kind}"]) == 0
    said = capsys.readouterr().out
    assert [f"opd train conf=quickstart {one} steps=20" in said for one in settings()] == [True] * 4
    config = load("quickstart", settings()).config
    parts = (config.objective, config.data.tasks["made_task"], config.teacher, config.source)
    assert [type(p).__name__ for p in parts] == ["MadeObjective", "MadeTask", "MadeTeacher", "MadeSource"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"test_made_{k}.py" for k in KINDS)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " 10 passed" in f" {done.stdout.splitlines()[-1]}"


@pytest.mark.slow
def test_all_four_train_together(folder: Path) -> None:
    for kind in KINDS:
        assert cli_code(["new", kind, f"made_{kind}"]) == 0
    tiny = [
        "rollout=hf", "steps=2", "eval.every=0", "eval.size=2", "preflight.prompts=2", "data.prompts_per_step=4",
        "sampling.max_tokens=8", "source.tokens=4", "run=made", "-q",
    ]  # fmt: skip
    assert cli_code(["train", "conf=quickstart", *settings(), *tiny]) == 0
    first, *_, last = read_metrics(Path("made/metrics.jsonl"))
    assert last["optim/grad_norm"] > 0
    assert last["optim/trained_tokens"] <= 4 * 4
    assert last["kl/sampled"] != first.get("kl/sampled")


@pytest.mark.parametrize("there", ["mine.py", "mine.yaml", "test_mine.py"])
def test_nothing_is_written_over(there: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(there).write_text("mine")
    assert cli_code(["new", "task", "mine"]) == 2
    assert f"opd: {there}: there is such a file already" in capsys.readouterr().err
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [(there, "mine")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["taks", "mine"], "no such kind of part, did you mean task? there are objective, task, teacher, source"),
        (["task", "my-task"], "allowed is the name of a Python module, as in my_task"),
        (["task", "class"], "allowed is the name of a Python module"),
        (["task", "a.b"], "allowed is the name of a Python module"),
        (["task", "../x"], "allowed is the name of a Python module"),
        (["teacher", "json"], "there is a module of that name"),
    ],
)
def test_a_name_that_cannot_be_is_one_line(
    arguments: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_code(["new", *arguments]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not list(folder.iterdir())


def test_another_folder_is_made_and_said_to_be_gone_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["new", "source", "made_source", "--out", "a b/c"]) == 0
    assert "  cd 'a b/c'\n" in capsys.readouterr().out
    assert (folder / "a b" / "c" / "made_source.py").is_file()
