"""A recipe, and where recipes are."""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opd.hints import among
from opd.places import typed
from opd.recipe.result import Result
from opd.recipe.stage import Stage
from opd.recipe.stamps import DONE, STARTED
from opd.recipe.work import Work
from opd.types import UserError

_HERE = Path(__file__).resolve().parent.parent
PACKAGED = _HERE / "recipes" if (_HERE / "recipes").is_dir() else _HERE.parent / "recipes"
"""The recipes that ship: inside the wheel, or at the top of a checkout."""
TAKEN = ("logs", STARTED, DONE, "result")
"""What the work folder holds beside its stages."""


@dataclass(frozen=True)
class Recipe:
    """An experiment: its runs, what is measured on them, and how that is drawn."""

    stages: tuple[Stage, ...]
    """At the scale of a CPU, in an order in which each comes after those that it needs."""
    measure: Callable[[Work], Result]
    """From the done stages to the result."""
    plots: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    """File name -> from the result's data to a matplotlib figure."""
    full: tuple[Stage, ...] = ()
    """The same at the published scale, which needs GPUs."""
    published: str = ""
    """What was published for that scale, and where."""

    def at(self, scale: str) -> tuple[Stage, ...]:
        """The stages of a scale.

        Raises:
            UserError: the recipe has none at this scale.
        """
        stages = {"cpu": self.stages, "full": self.full}[scale]
        if not stages:
            raise UserError(f"--scale {scale}: this recipe has no runs of that size; allowed is cpu")
        return stages


def shipped() -> dict[str, Path]:
    """Recipes by name: folders with a `run.py`."""
    return {p.parent.name: p for p in sorted(PACKAGED.glob("*/run.py"))}


def questions() -> dict[str, str]:
    """What each recipe that ships asks; read from the first line of its `run.py`, so that nothing is imported."""
    first = {name: path.read_text(encoding="utf-8").split("\n", 1)[0] for name, path in shipped().items()}
    return {name: line.strip('"') for name, line in first.items()}


def find(name: str) -> Path:
    """The `run.py` of a recipe that ships, or of a folder of one's own.

    Raises:
        UserError: there is none; names the nearest.
    """
    there = shipped()
    path = there.get(name) or typed(name) / "run.py"
    if not path.is_file():
        raise UserError(f"recipe {name}: there is no such recipe, nor a folder with a run.py{among(name, there)}")
    return path.resolve()


def load(path: Path) -> Recipe:
    """Read the `RECIPE` of a `run.py`.

    Raises:
        UserError: it cannot be run or has none, a stage has no name of its own, or needs what does not come before it.
    """
    try:
        recipe = runpy.run_path(str(path)).get("RECIPE")
    except (Exception, SystemExit) as e:  # it is someone's program, and may do anything
        raise UserError(f"{path}{line_of(e, path)}: it cannot be read, {type(e).__name__}: {str(e)[:300]}") from e
    if not isinstance(recipe, Recipe):
        raise UserError(f"{path}: it must set RECIPE to an opd.recipe.Recipe")
    for stages in (recipe.stages, recipe.full):
        check_order(stages, path)
    return recipe


def line_of(error: BaseException, path: Path) -> str:
    """`, line N` of the file in which an error arose; nothing where it arose before any of its lines."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def check_order(stages: Sequence[Stage], path: Path) -> None:
    """UserError where names are not plain or not unique, or a stage needs one that does not come before it."""
    seen: set[str] = set()
    for stage in stages:
        if not re.fullmatch(r"\w[^/\\\0]*", stage.name) or ".." in stage.name or stage.name in TAKEN:
            raise UserError(
                f"{path}: stage {stage.name!r}: allowed is a plain name, without / and .., that begins with a letter "
                f"or a digit and is none of {', '.join(TAKEN)}"
            )
        if stage.name in seen:
            raise UserError(f"{path}: two stages are named {stage.name}")
        missing = set(stage.after) - seen
        if missing:
            raise UserError(f"{path}: stage {stage.name} needs {', '.join(sorted(missing))}, which is not before it")
        seen.add(stage.name)
