"""A run's folder may be anybody's: what its config names does not run before somebody has said that it may."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import opd
from opd.config.trust import allowances, check_trusted
from opd.types import UserError
from tests.tiny import cli_code

PAYLOAD = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from opd.objectives.reverse_kl import ReverseKL

Path("it_ran").touch()


@dataclass(frozen=True)
class Evil(ReverseKL):
    """Nothing."""
'''


@pytest.fixture
def foreign(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run's folder whose config names a module that lies in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "foreign"
    folder.mkdir()
    yaml = opd.compose(config).yaml
    (folder / "config.yaml").write_text(yaml.replace("opd.objectives.reverse_kl.ReverseKL", "foreign.payload.Evil"))
    (folder / "payload.py").write_text(PAYLOAD)
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "foreign"]:
        del sys.modules[name]


@pytest.mark.parametrize("command", ["eval", "export", "sample", "train --resume", "train --resume --dry-run"])
def test_a_foreign_run_does_not_run_its_code(foreign: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code([*command.split(), f"run={foreign}"]) == 2
    err = capsys.readouterr().err
    assert "objective._target_=foreign.payload.Evil" in err
    assert "--parts foreign.payload" in err
    assert not Path("it_ran").exists()
    assert "foreign.payload" not in sys.modules


@pytest.mark.parametrize("name", ["foreign", "foreign.payload"])
def test_what_is_allowed_by_name_runs(foreign: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["eval", f"run={foreign}", "--parts", name]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err
    assert Path("it_ran").exists()


@pytest.mark.parametrize("name", ["foreign.pay", "foreign.payload.Evil", "other", "fore"])
def test_what_is_not_the_module_nor_holds_it_allows_nothing(foreign: Path, name: str) -> None:
    assert cli_code(["eval", f"run={foreign}", "--parts", name]) == 2
    assert not Path("it_ran").exists()


def test_from_python_a_foreign_run_does_not_run_its_code_either(foreign: Path) -> None:
    with pytest.raises(UserError, match="--parts foreign"):
        _ = opd.load_run(foreign).config
    with pytest.raises(UserError, match="--parts foreign"):
        opd.evaluate(foreign)
    assert not Path("it_ran").exists()
    assert type(opd.load_run(foreign, parts=["foreign"]).config.objective).__name__ == "Evil"


def test_a_folder_called_recipes_in_a_foreign_run_is_not_what_ships(
    foreign: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (foreign / "recipes").mkdir()
    (foreign / "recipes" / "evil.py").write_text(PAYLOAD)
    text = opd.compose(config).yaml.replace("opd.objectives.reverse_kl.ReverseKL", "recipes.evil.Evil")
    (foreign / "config.yaml").write_text(text)
    monkeypatch.chdir(foreign)
    monkeypatch.syspath_prepend(str(foreign))
    assert cli_code(["eval", "run=."]) == 2
    assert "--parts recipes.evil" in capsys.readouterr().err
    assert not Path("it_ran").exists()


def test_files_beside_a_foreign_config_are_no_way_around(foreign: Path, config: Path) -> None:
    (foreign / "config.yaml").write_text(opd.compose(config).yaml)
    (foreign / "objective").mkdir()
    (foreign / "objective" / "gkd.yaml").write_text("_target_: foreign.payload.Evil\n")
    assert cli_code(["eval", f"run={foreign}", "objective=gkd"]) == 2
    assert not Path("it_ran").exists()


def test_rows_that_come_with_a_package_do_not_import_it(foreign: Path, config: Path) -> None:
    inner = foreign / "payload"
    inner.mkdir()
    (inner / "__init__.py").write_text(PAYLOAD)
    (inner / "a.jsonl").write_text('{"prompt": "1", "answer": "1"}\n')
    path = "data.tasks.exact_match.path=pkg://foreign.payload/a.jsonl"
    assert cli_code(["train", f"conf={config}", "data=exact_match", path, "steps=1", "-q"]) == 2
    assert not Path("it_ran").exists()


def test_a_models_own_code_is_run_where_the_person_says_so_not_the_run() -> None:
    settings = {"student": {"model": "x", "trust_remote_code": True}}
    with pytest.raises(UserError, match="asks for code that comes with a model"):
        check_trusted(settings, [], [], "config.yaml")
    check_trusted(settings, ["student.trust_remote_code=true"], [], "config.yaml")
    check_trusted(settings, [], [], "config.yaml", models=False)


def test_a_name_that_is_typed_is_trusted() -> None:
    settings = {"teacher": {"_target_": "mine.Teacher"}}
    check_trusted(settings, ["teacher._target_=mine.Teacher"], [], "config.yaml")
    with pytest.raises(UserError, match="mine"):
        check_trusted(settings, ["teacher._target_=mine.Other"], [], "config.yaml")


@pytest.mark.parametrize("value", ["http://x/${oc.env:HOME}", "${oc.${name}:HOME}", "a\\\\${name}", "${student.model}"])
@pytest.mark.parametrize("command", ["eval", "train --resume", "sample"])
def test_a_foreign_config_refers_to_nothing(
    foreign: Path, config: Path, capsys: pytest.CaptureFixture[str], value: str, command: str
) -> None:
    yaml = opd.compose(config).yaml
    (foreign / "config.yaml").write_text(yaml.replace("name: tiny", f"name: '{value}'"))
    assert cli_code([*command.split(), f"run={foreign}"]) == 2
    assert "config.yaml refers to something else" in capsys.readouterr().err


def test_what_a_run_has_written_down_of_such_texts_is_a_text(foreign: Path, config: Path) -> None:
    (foreign / "config.yaml").write_text(opd.compose(config, r"teacher.model='\${oc.env:HOME}'").yaml)
    assert opd.load_run(foreign).config.teacher.model == "${oc.env:HOME}"


@pytest.mark.parametrize("name", ["teacher", "teacher.teachers.far"])
def test_a_variable_is_sent_to_a_server_where_the_person_says_so_not_the_run(name: str) -> None:
    settings: dict[str, Any] = {"api_key_env": "SECRET", "url": "http://elsewhere"}
    for part in reversed(name.split(".")):
        settings = {part: settings}
    with pytest.raises(UserError, match=f"if that server is yours, say so:  {name}.api_key_env=SECRET"):
        check_trusted(settings, [], [], "config.yaml")
    with pytest.raises(UserError, match="variable of your environment"):
        check_trusted(settings, [f"{name}.api_key_env=OTHER"], [], "config.yaml")
    check_trusted(settings, [f"{name}.api_key_env=SECRET"], [], "config.yaml")
    check_trusted(settings, [], [], "config.yaml", models=False)
    assert allowances(settings) == [f"{name}.api_key_env=SECRET"]
