"""`opd runs`, and which run other commands take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from opd.cli import app
from opd.commands.runs import age, shown, size
from opd.run.overview import overviews
from tests.report.made import save_run
from tests.tiny import cli_code

ROWS = [
    {"step": 0, "eval/accuracy": 0.5, "eval/accuracy_low": 0.4, "eval/accuracy_high": 0.6},
    {"step": 1, "kl/exact": 2},
]


def test_a_table_has_a_line_for_each_run_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_run(tmp_path / "runs/good", ROWS)
    save_run(tmp_path / "runs/bad", ROWS).metrics.write_text("nothing\n")
    (tmp_path / "runs/other").mkdir()
    assert cli_code(["runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "50.0% [40.0, 60.0] at 0" in out
    assert "damaged, no checkpoint" in out
    assert "no run (no config.yaml)" in out
    assert "\nbad: " in out
    assert cli_code(["runs", str(tmp_path / "runs"), "--json"]) == 0
    told = {Path(o["path"]).name: o for o in json.loads(capsys.readouterr().out)}
    assert (told["good"]["step"], told["good"]["steps"], told["bad"]["state"]) == (1, 2, "damaged")


def test_a_narrow_terminal_gets_fewer_columns(tmp_path: Path) -> None:
    save_run(tmp_path / "good", ROWS)
    found = overviews(tmp_path)
    assert "size" in shown(found, 0)
    narrow = shown(found, 0, 80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "best evaluation" in narrow


def test_ages_and_sizes_are_for_people() -> None:
    assert [age(s) for s in (-1, 5, 61, 3600, 3 * 3600, 40 * 3600, 72 * 3600)] == [
        "0 s", "5 s", "1 min", "1 h", "3 h", "40 h", "3 days",
    ]  # fmt: skip
    assert [size(n) for n in (7, 1234, 2_500_000, 3 * 10**9)] == ["7 B", "1.23 kB", "2.5 MB", "3 GB"]


def test_looking_at_runs_needs_no_torch(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_run(tmp_path / name, ROWS)
    code = (
        "import sys; from opd import cli\n"
        f"for command in (['runs', {str(tmp_path)!r}], ['diff', {str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}]):\n"
        "    try: cli.main(command)\n"
        "    except SystemExit as e: assert not e.code, command\n"
        "print([m for m in ('torch', 'transformers', 'hydra', 'vllm', 'pyarrow', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()[-1] == "[]"


def helps() -> list[list[str]]:
    """Commands whose help says that they take the newest run, as they are typed."""
    group = typer.main.get_command(app)
    found = []
    for name, command in vars(group)["commands"].items():
        words = [command.help or "", *(getattr(p, "help", None) or "" for p in command.params)]
        found += [[name]] if any("newest run" in text or "newest one" in text for text in words) else []
    return [*found, ["train", "--resume", "--dry-run"]]


@pytest.mark.parametrize("command", helps(), ids=" ".join)
def test_a_command_that_takes_the_newest_run_says_which(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_run(tmp_path / "runs/old", ROWS)
    save_run(tmp_path / "runs/new", ROWS)
    more = {"harness": ["--tasks", "arc_easy"], "chat": ["-p", "1"]}.get(command[0], [])
    cli_code([*command, *more])
    out, err = capsys.readouterr()
    assert err.startswith("the newest run: runs/new\n")
    assert "the newest run" not in out


def test_those_that_take_the_newest_run_are_known() -> None:
    assert {command[0] for command in helps()} == {"eval", "export", "sample", "chat", "harness", "report", "train"}


def test_a_run_that_is_named_needs_no_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_run(tmp_path / "runs/old", ROWS)
    cli_code(["export", f"run={run.path}"])
    assert "newest" not in capsys.readouterr().err
