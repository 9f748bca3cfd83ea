"""What a recipe is made of: a run, an evaluation, an export, or a function, each in a process of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from opd.recipe.work import Work

OPD = (sys.executable, "-m", "opd.cli")
PLACE = "{work}"
"""In a setting: the recipe's work folder, where other stages leave their runs."""
HERE = "{recipe}"
"""In a setting: the recipe's own folder, where its texts and configs are."""


class Stage(Protocol):
    """One process of a recipe. `name` is its folder in the work folder, or the stem of its JSON file."""

    @property
    def name(self) -> str:
        """Its name, unique in the recipe."""
        ...

    @property
    def after(self) -> tuple[str, ...]:
        """Stages that must be done before."""
        ...

    @property
    def says(self) -> str:
        """What it does, as a person would type it; a done stage that now says something else is not taken as done."""
        ...

    @property
    def prints_json(self) -> bool:
        """Whether its standard output is its result."""
        ...

    def begin(self, work: Work, recipe: Path) -> list[str]:
        """Make ready and give the command line; goes on with what an interrupted one has left."""
        ...


@dataclass(frozen=True)
class Train:
    """`opd train SETTINGS`, into WORK/NAME."""

    name: str
    settings: tuple[str, ...]
    after: tuple[str, ...] = ()
    prints_json: bool = field(default=False, init=False)

    @property
    def says(self) -> str:
        """The command."""
        return f"opd train {' '.join(self.settings)} run={PLACE}/{self.name}"

    def begin(self, work: Work, recipe: Path) -> list[str]:
        """Go on from the newest checkpoint where there is one."""
        run = work.run(self.name)
        if any(run.checkpoints.glob("step_*")):
            return [*OPD, "train", "--resume", f"run={run.path}", "--quiet"]
        shutil.rmtree(run.path, ignore_errors=True)  # it stopped before its first checkpoint
        return [*OPD, "train", *placed(self.settings, work, recipe), f"run={run.path}", "--quiet"]


@dataclass(frozen=True)
class Evaluate:
    """`opd eval SETTINGS --json`, whose rows become WORK/NAME.json."""

    name: str
    settings: tuple[str, ...]
    after: tuple[str, ...] = ()
    prints_json: bool = field(default=True, init=False)

    @property
    def says(self) -> str:
        """The command."""
        return f"opd eval {' '.join(self.settings)}"

    def begin(self, work: Work, recipe: Path) -> list[str]:
        """Nothing to go on with."""
        return [*OPD, "eval", *placed(self.settings, work, recipe), "--json", "--quiet"]


@dataclass(frozen=True)
class Export:
    """`opd export` of a stage's run, into WORK/NAME: a checkpoint that other stages can start from."""

    name: str
    run: str
    dtype: str = "float32"
    prints_json: bool = field(default=False, init=False)

    @property
    def after(self) -> tuple[str, ...]:
        """The run that is exported."""
        return (self.run,)

    @property
    def says(self) -> str:
        """The command."""
        return f"opd export run={PLACE}/{self.run} --dtype {self.dtype} --out {PLACE}/{self.name}"

    def begin(self, work: Work, recipe: Path) -> list[str]:
        """Start again where one was interrupted."""
        out = work.path / self.name
        shutil.rmtree(out, ignore_errors=True)
        source = f"run={work.path / self.run}"
        return [*OPD, "export", source, "--dtype", self.dtype, "--out", str(out), "--quiet"]


@dataclass(frozen=True)
class Call:
    """A function of the recipe's `run.py`, given the work folder, whose result becomes WORK/NAME.json."""

    name: str
    function: Callable[[Work], Mapping[str, Any]]
    after: tuple[str, ...] = ()
    prints_json: bool = field(default=True, init=False)

    @property
    def says(self) -> str:
        """The function's name, and the first line of what it says of itself."""
        return f"{self.function.__name__}(): {(self.function.__doc__ or '').strip().splitlines()[0]}"

    def begin(self, work: Work, recipe: Path) -> list[str]:
        """Nothing to go on with, but what the function itself has kept."""
        return [sys.executable, "-m", "opd.recipe.call", str(recipe), self.name, str(work.path)]


def placed(settings: tuple[str, ...], work: Work, recipe: Path) -> list[str]:
    """Settings with the paths of both folders in their places."""
    return [s.replace(PLACE, str(work.path)).replace(HERE, str(recipe.parent)) for s in settings]
