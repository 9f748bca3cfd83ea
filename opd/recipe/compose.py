"""Compose what a recipe's commands are told, so that a misspelt setting is found before anything runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from opd.config.arguments import split_settings
from opd.config.compose import load
from opd.recipe.stage import NAMED, Evaluate, Stage, Train, placed
from opd.recipe.work import Work
from opd.types import UserError

NUMBER = re.compile(r"(?<==)[\d.]+(e-?\d+)?$")


def check_settings(stages: Sequence[Stage], work: Work, recipe: Path) -> None:
    """Compose the settings of each run and evaluation of a `conf=`; those that differ in numbers alone, once.

    Raises:
        UserError: the settings of a stage make no config; names the stage.
    """
    sys.path.insert(0, str(recipe.parent))  # as its stages have it: a `_target_` that only this folder has
    try:
        seen = set()
        for stage in stages:
            if not isinstance(stage, Train | Evaluate):
                continue
            key = (type(stage), *(NUMBER.sub("N", setting) for setting in stage.settings))
            if key not in seen:
                seen.add(key)
                compose(stage, work, recipe)
    finally:
        sys.path.remove(str(recipe.parent))


def compose(stage: Train | Evaluate, work: Work, recipe: Path) -> None:
    """The config of one stage; one that another stage will make, as of `run=`, cannot be known yet."""
    try:
        named, overrides = split_settings(placed(stage.settings, work, recipe), set(NAMED))
        if "conf" in named:
            load(named["conf"], overrides, published=isinstance(stage, Evaluate))
    except UserError as e:
        raise UserError(f"stage {stage.name}: {e}") from e
