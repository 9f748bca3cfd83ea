"""`opd recipe ls` and `opd recipe run`, on a recipe of a few lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opd.recipe.recipe import load, shipped
from opd.recipe.result import BEGIN, END
from opd.types import UserError
from tests.tiny import cli_code

OWN = '''"""How much is one and two?"""

from opd.recipe import Call, Claim, Recipe, Result, Table, figure, mark_axes


def add(work):
    """Add up."""
    print("on the way")
    return {"sum": 1 + 2}


def measure(work):
    found = work.json("add")["sum"]
    table = Table("Sums", ("sum",), ((found,),))
    return Result((table,), (Claim("It is three.", str(found), "reproduced"),), {"sum": found})


def plot(data):
    drawn, (ax,) = figure()
    ax.plot([0, 1], [0, data["sum"]], label="sum")
    mark_axes(ax, "x", "y")
    return drawn


RECIPE = Recipe(stages=(Call("add", add),), measure=measure, plots={"line": plot})
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "run.py").write_text(OWN)
    (folder / "README.md").write_text(f"# Own\n\n{BEGIN}\n{END}\n\nNothing else.\n")
    return folder


def test_ls_shows_every_recipe_with_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["recipe", "ls", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(shipped())


def test_a_recipe_of_ones_own_is_run_drawn_and_published(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the plots need the extra `recipes`")
    work = own.parent / "work"
    assert cli_code(["recipe", "run", str(own), "--work", str(work), "--publish"]) == 0
    assert "**Reproduced:** It is three. Here: 3" in capsys.readouterr().out
    assert "on the way" in (work / "logs/add.log").read_text()
    readme = (own / "README.md").read_text()
    assert "| 3 |" in readme
    assert readme.endswith("\n\nNothing else.\n")
    assert {p.name for p in own.glob("line.*")} == {"line.png", "line.svg"}
    first = (own / "line.svg").read_bytes()
    assert cli_code(["recipe", "run", str(own), "--work", str(work), "--publish"]) == 0
    assert "1 stages, 1 of them done before" in capsys.readouterr().out
    assert (own / "line.svg").read_bytes() == first


def test_a_dry_run_says_what_is_to_do_and_does_nothing(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = own.parent / "work"
    assert cli_code(["recipe", "run", str(own), "--work", str(work), "--dry-run"]) == 0
    assert "to do  add" in capsys.readouterr().out
    assert not work.exists()


def test_a_readme_without_a_place_for_the_result_is_refused_before_the_runs(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "README.md").write_text("# Own\n")
    assert cli_code(["recipe", "run", str(own), "--work", str(own.parent / "work"), "--publish"]) == 2
    assert "it needs the lines" in capsys.readouterr().err
    assert not (own.parent / "work").exists()


def test_a_wrong_name_or_scale_is_one_line(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["recipe", "run", "three_way"]) == 2
    assert "three_ways" in capsys.readouterr().err
    assert cli_code(["recipe", "run", str(own), "--scale", "full"]) == 2
    assert "--scale full: this recipe has no runs of that size; allowed is cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("def f(:\n", "run.py, line 1: it cannot be read, SyntaxError: invalid syntax"),
        ("\nimport nowhere_to_be_found\n", "run.py, line 2: it cannot be read, ModuleNotFoundError"),
        ("def f():\n    return 1 / 0\n\nf()\n", "run.py, line 2: it cannot be read, ZeroDivisionError"),
        ("import sys\nsys.exit()\n", "run.py, line 2: it cannot be read, SystemExit"),
    ],
)
def test_a_program_that_cannot_be_run_is_one_line(
    own: Path, program: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "run.py").write_text(program)
    assert cli_code(["recipe", "run", str(own)]) == 2
    said = capsys.readouterr().err
    assert f"{own}/{says}" in said
    assert said.count("\n") == 1


def test_a_work_folder_that_cannot_be_is_refused_and_left(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for work, says in ((own / "run.py", "a file is where a folder should be"), (own, "the folder is not empty")):
        for dry in ([], ["--dry-run"]):
            assert cli_code(["recipe", "run", str(own), "--work", str(work), *dry]) == 2
            assert says in capsys.readouterr().err
    assert {p.name for p in own.iterdir()} == {"run.py", "README.md"}


def test_publishing_needs_a_readme(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "README.md").unlink()
    assert cli_code(["recipe", "run", str(own), "--work", str(own.parent / "work"), "--publish"]) == 2
    assert "--publish: there is no" in capsys.readouterr().err
    assert not (own.parent / "work").exists()


def test_a_dry_run_finds_a_misspelt_setting(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = 'Train("a", ("conf=quickstart", "steps=3")), Train("b", ("conf=quickstart", "optim.lrr=1"))'
    (own / "run.py").write_text(OWN.replace("import Call", "import Train, Call").replace('Call("add", add),', stages))
    assert cli_code(["recipe", "run", str(own), "--work", str(own.parent / "work"), "--dry-run"]) == 2
    assert "stage b: optim.lrr" in capsys.readouterr().err


def test_a_stage_is_told_of_debug(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "run.py").write_text(
        OWN.replace("import Call", "import Train, Call").replace('Call("add", add),', 'Train("a", ("conf=no_such",)),')
    )
    work = own.parent / "work"
    assert cli_code(["recipe", "run", str(own), "--work", str(work), "--debug"]) == 1
    assert "a failed: opd: conf=no_such" in capsys.readouterr().err
    assert "--quiet --debug" in (work / "logs" / "a.log").read_text()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ('Call("../a", add),', r"stage '\.\./a': allowed is a plain name"),
        ('Call("a/b", add),', "stage 'a/b': allowed is a plain name"),
        ('Call("logs", add),', "none of logs, started, done, result"),
        ('Call("a", add), Call("a", add)', "two stages are named a"),
        ('Call("a", add, ("b",)), Call("b", add)', "stage a needs b, which is not before it"),
    ],
)
def test_stages_out_of_order_are_refused(own: Path, stages: str, message: str) -> None:
    (own / "run.py").write_text(OWN.replace('Call("add", add),', stages))
    with pytest.raises(UserError, match=message):
        load(own / "run.py")


def test_a_file_without_a_recipe_is_refused(own: Path) -> None:
    (own / "run.py").write_text("RECIPE = 3\n")
    with pytest.raises(UserError, match=r"run\.py: it must set RECIPE"):
        load(own / "run.py")
