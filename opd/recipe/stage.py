"""What a recipe is made of: a run, an evaluation, an export, or a function, each in a process of its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from opd import children
from opd.recipe.work import Work
from opd.run.checkpoint import checkpoints

OPD = tuple(children.command("opd"))
PLACE = "{work}"
"""In a setting: the recipe's work folder, where other stages leave their runs."""
HERE = "{recipe}"
"""In a setting: the recipe's own folder, where its texts and configs are."""
NAMED = ("conf", "run", "step", "model")
"""What `opd` takes as it stands; all other settings are read by Hydra."""


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
        """Make ready and give the command line; goes on with what an interrupted one has left.

        WORK/NAME holds nothing but what this very stage, with these settings, has left there half done.
        """
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
        if checkpoints(run.checkpoints):
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
        said = (self.function.__doc__ or "").strip().splitlines()
        return f"{self.function.__name__}(){': ' if said else ''}{''.join(said[:1])}"

    def begin(self, work: Work, recipe: Path) -> list[str]:
        """Nothing to go on with, but what the function itself has kept."""
        return children.command("opd.recipe.call", str(recipe), self.name, str(work.path))


def placed(settings: tuple[str, ...], work: Work, recipe: Path) -> list[str]:
    """Settings with the paths of both folders in their places, quoted where Hydra would stumble over them."""
    return [put(setting, {PLACE: str(work.path), HERE: str(recipe.parent)}) for setting in settings]


def put(setting: str, paths: Mapping[str, str]) -> str:
    """One setting with its paths.

    A value that is a path, or begins with one, is quoted as a whole, since a comma, a bracket or a quote in it would
    have a meaning; inside a list or a mapping it stands as it is.
    """
    key, equals, value = setting.partition("=")
    full = value
    for place, path in paths.items():
        full = full.replace(place, path)
    if key not in NAMED and value.startswith(tuple(paths)):
        # Hydra reads a backslash as such, but before a quote, where both are doubled or marked.
        full = '"' + re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + m[2].replace('"', r"\""), full) + '"'
    return f"{key}{equals}{full}"
