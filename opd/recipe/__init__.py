"""Recipes: experiments of several runs, each a folder of `recipes/` whose `run.py` holds a `RECIPE`."""

from opd.recipe.curve import Curve, mean, reaches, read_curve, span
from opd.recipe.plots import COLOURS, curves_over, figure, mark_axes, style
from opd.recipe.recipe import Recipe
from opd.recipe.result import Claim, Result, Table, markdown
from opd.recipe.stage import Call, Evaluate, Export, Stage, Train
from opd.recipe.work import Work

__all__ = [
    "COLOURS",
    "Call",
    "Claim",
    "Curve",
    "Evaluate",
    "Export",
    "Recipe",
    "Result",
    "Stage",
    "Table",
    "Train",
    "Work",
    "curves_over",
    "figure",
    "mark_axes",
    "markdown",
    "mean",
    "reaches",
    "read_curve",
    "span",
    "style",
]
