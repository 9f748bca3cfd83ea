"""Paths as people type them: read in one way everywhere."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from opd.config.catalog import locate
from opd.places import real, typed
from opd.recipe.command import place
from opd.recipe.recipe import find
from opd.report.page import write_report
from opd.run.directory import find_run, new_run, newest_run
from opd.tasks.files import load
from opd.types import UserError

ROOT = Path(__file__).parents[1]
NOBODY = "~nobody-of-this-name/x"
CALLS: dict[str, Callable[[], object]] = {
    "conf": lambda: locate(f"{NOBODY}.yaml"),
    "run": lambda: find_run({"run": NOBODY}),
    "runs": lambda: newest_run(NOBODY),
    "data": lambda: load(f"{NOBODY}.jsonl", columns=["prompt"]),
    "recipe": lambda: find(NOBODY),
    "report": lambda: write_report([NOBODY], Path(NOBODY)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_home_of_nobody_is_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match="nobody-of-this-name"):
        CALLS[name]()


def test_ones_own_home_is_put_in_and_links_in_a_circle_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert typed("~/x") == tmp_path / "x"
    assert new_run("~/runs", "a").path.parent == tmp_path / "runs"
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert real("~/a") == tmp_path / "a"
    assert place(tmp_path / "recipe" / "run.py", "cpu", tmp_path / "a").path == tmp_path / "a"


def test_only_one_file_puts_homes_in_so_that_no_way_of_failing_is_forgotten() -> None:
    known = {"places.py", "types.py"}  # types.py imports nothing of opd, and does it as places.py does
    for folder in ("opd", "recipes"):
        for file in (ROOT / folder).rglob("*.py"):
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
            assert file.name in known or "expanduser" not in named, f"{file}: use opd.places.typed"
