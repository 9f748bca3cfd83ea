"""`opd recipe run`: the stages, then `result.json`, the plots, and on demand the README of the recipe's own folder."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import rich.console

from opd.extras import install
from opd.places import real
from opd.recipe.claim import claimed, refuse_foreign
from opd.recipe.figures import figures
from opd.recipe.plots import save
from opd.recipe.process import How
from opd.recipe.recipe import Recipe, find, load
from opd.recipe.result import Result, markdown, with_result
from opd.recipe.runner import run_stages, still_done
from opd.recipe.watch import Watch
from opd.recipe.work import Work
from opd.run.directory import environment
from opd.types import UserError


def run_recipe(name: str, scale: str, folder: Path | None, how: How, publish: bool) -> None:
    """Run what is left of a recipe and show what it has found.

    Raises:
        UserError: no such recipe or scale; no work folder; no place for its result; matplotlib is missing.
        RunError: a stage failed.
        Interrupted: a signal came; the same command goes on.
    """
    path = find(name)
    recipe = load(path)
    stages = recipe.at(scale)
    check_plots(recipe)
    if publish:
        check_publish(path.parent, scale)
    work = place(path, scale, folder)
    console = rich.console.Console()
    with claimed(work.path) as held:
        with Watch(console, plain=how.debug) as watch:
            run_stages(stages, path, work, replace(how, held=(held,)), watch)
        found = recipe.measure(work) if scale == "cpu" else figures(work, stages, recipe.published)
        result = replace(found, seconds=round(sum(work.stamps.seconds(s.name) for s in stages)))
        result.write(work.path / "result.json", environment=environment())
        if scale == "cpu":
            draw(recipe, Result.read(work.path / "result.json"), work.path)
        if publish:
            publish_to(path.parent, recipe, work)
    console.print(markdown(result, []), markup=False, highlight=False, soft_wrap=True)
    console.print(f"\ndone: {work.path}/result.json")


def plan(name: str, scale: str, folder: Path | None) -> str:
    """What would be run, a line per stage, all of whose settings make a config."""
    from opd.recipe.compose import check_settings  # brings Hydra and torch along, which nothing else here needs

    path = find(name)
    recipe = load(path)
    stages = recipe.at(scale)
    work = place(path, scale, folder)
    refuse_foreign(work.path)
    check_settings(stages, work, path)
    done = still_done(stages, work)
    lines = [f"{'done' if s.name in done else 'to do':6} {s.name:28} {s.says}" for s in stages]
    published = [f"published: {recipe.published}"] if scale == "full" and recipe.published else []
    return "\n".join([f"work folder: {work.path}", *published, *lines])


def place(path: Path, scale: str, folder: Path | None) -> Work:
    """The work folder: the given one, or one of the recipe's name under runs/."""
    ending = "" if scale == "cpu" else f"-{scale}"
    return Work(real(folder or Path("runs") / "recipes" / f"{path.parent.name}{ending}"))


def check_publish(folder: Path, scale: str) -> None:
    """UserError where the result cannot be put into a recipe's folder; hours of runs would come before it."""
    if scale != "cpu":
        raise UserError(f"--publish: the README shows the CPU's runs; allowed with --scale {scale} is to leave it out")
    readme = folder / "README.md"
    if not readme.is_file():
        raise UserError(f"--publish: there is no {readme} to put the result into")
    if not os.access(folder, os.W_OK) or not os.access(readme, os.W_OK):
        raise UserError(f"--publish: nothing may be written to {folder}; copy the folder, and run the copy")
    with_result(readme.read_text(encoding="utf-8"), "")


def check_plots(recipe: Recipe) -> None:
    """UserError where the recipe draws and there is nothing to draw with; hours of runs would come before it."""
    if recipe.plots and not importlib.util.find_spec("matplotlib"):
        raise UserError(f"the plots need matplotlib, which is not installed:  {install('recipes')}")


def draw(recipe: Recipe, result: Result, folder: Path) -> None:
    """Write every plot as PNG and SVG."""
    for name, make in recipe.plots.items():
        save(make(result.data), folder / name)


def publish_to(folder: Path, recipe: Recipe, work: Work) -> None:
    """Put the result, its plots and its tables into the recipe's own folder."""
    (folder / "result.json").write_bytes((work.path / "result.json").read_bytes())
    draw(recipe, Result.read(folder / "result.json"), folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    shown = markdown(Result.read(folder / "result.json"), list(recipe.plots))
    (folder / "README.md").write_text(with_result(text, shown), encoding="utf-8")
