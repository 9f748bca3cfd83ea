"""Every recipe that ships: its stages can be configured, and its README says what its result.json does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opd.config.arguments import split_settings
from opd.config.compose import load as load_config
from opd.recipe import Evaluate, Export, Result, Train, Work, markdown
from opd.recipe.recipe import load, questions, shipped
from opd.recipe.result import with_result
from opd.recipe.stage import placed

RECIPES = shipped()
MEASURED = {name: path for name, path in RECIPES.items() if (path.parent / "result.json").is_file()}


def without_numbers(settings: list[str]) -> tuple[str, ...]:
    """Settings that differ in their seed or rate only need one look."""
    return tuple(s for s in settings if not s.startswith(("seed=", "optim.lr=")) and "-seed" not in s)


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_loads_and_asks_its_question(name: str) -> None:
    recipe = load(RECIPES[name])
    assert recipe.stages
    assert questions()[name].endswith("?")
    runs = {s.name for s in (*recipe.stages, *recipe.full) if isinstance(s, Train)}
    assert all(s.run in runs for s in (*recipe.stages, *recipe.full) if isinstance(s, Export))


@pytest.mark.parametrize("name", RECIPES)
def test_each_run_of_a_recipe_can_be_composed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, work = load(RECIPES[name]), Work(tmp_path)
    monkeypatch.syspath_prepend(RECIPES[name].parent)  # as the runner does
    seen = set()
    for stage in (*recipe.stages, *recipe.full):
        if not isinstance(stage, Train | Evaluate):
            continue
        named, overrides = split_settings(placed(stage.settings, work, RECIPES[name]), {"conf", "run", "step", "model"})
        key = (named.get("conf"), *without_numbers(overrides))
        if "conf" in named and key not in seen:
            seen.add(key)
            load_config(named["conf"], overrides)
    assert seen


@pytest.mark.parametrize("name", MEASURED)
def test_each_readme_shows_what_its_result_holds(name: str) -> None:
    folder = MEASURED[name].parent
    text = (folder / "README.md").read_text(encoding="utf-8")
    shown = markdown(Result.read(folder / "result.json"), list(load(MEASURED[name]).plots))
    assert with_result(text, shown) == text


@pytest.mark.parametrize("name", MEASURED)
def test_each_result_is_strict_json(name: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (MEASURED[name].parent / "result.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", MEASURED)
def test_each_result_can_be_drawn(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plots need the extra `recipes`")
    from opd.recipe.plots import save

    recipe, data = load(MEASURED[name]), Result.read(MEASURED[name].parent / "result.json").data
    for plot, make in recipe.plots.items():
        save(make(data), tmp_path / plot)
        assert (tmp_path / f"{plot}.png").stat().st_size > 1000
        assert (MEASURED[name].parent / f"{plot}.svg").read_text().startswith("<?xml")
