"""`opd recipe`: list and run the experiments that ship. Heavy imports are inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opd.config.arguments import Debug, Json, echo, show_names
from opd.types import UserError

recipe_app = typer.Typer(help="Experiments of several runs, with their measured results.", no_args_is_help=True)


@recipe_app.command("ls")
def recipe_ls(as_json: Json = False) -> None:
    """List the recipes that ship, each with its question."""
    from opd.recipe.recipe import questions

    show_names(questions(), as_json)


@recipe_app.command("run")
def recipe_run(
    name: Annotated[str, typer.Argument(help="A recipe that ships, or a folder with a run.py.")],
    scale: Annotated[str, typer.Option(help="cpu: minutes on two cores; full: the published sizes, on GPUs.")] = "cpu",
    work: Annotated[Path | None, typer.Option(help="Folder of its runs; default: runs/recipes/NAME.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Stages at once, which share the cores.")] = 1,
    publish: Annotated[bool, typer.Option("--publish", help="Also renew the recipe's own README and plots.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the stages; do nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Run a recipe, or what is left of it, and show what it found."""
    if scale not in ("cpu", "full"):
        raise UserError(f"--scale {scale}: allowed is cpu or full")
    from opd.recipe.command import plan, run_recipe
    from opd.recipe.process import How

    if dry_run:
        echo(plan(name, scale, work))
    else:
        run_recipe(name, scale, work, How(jobs, debug=debug), publish)
