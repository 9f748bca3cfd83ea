"""`opd config`: list, show and copy the configs that ship. Heavy imports are inside the commands."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from opd.config.arguments import Json, echo, show_names, split_settings
from opd.disk import whole
from opd.hints import quoted
from opd.types import UserError

config_app = typer.Typer(help="The configs that ship: list, show, copy.", no_args_is_help=True)


@config_app.command("ls")
def config_ls(
    group: Annotated[str | None, typer.Argument(help="A group, as in objective: what it can be set to.")] = None,
    as_json: Json = False,
) -> None:
    """List the configs that ship, or what GROUP (objective, teacher, ...) can be set to."""
    from opd.config.catalog import described, shipped

    show_names(described(group) if group else shipped(), as_json)


@config_app.command("explain")
def config_explain(
    key: Annotated[str | None, typer.Argument(help="As in optim.lr; none: which parts there are.")] = None,
    settings: Annotated[list[str] | None, typer.Argument(help="conf=NAME (else quickstart), overrides.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a setting means, what it may be, what it is in a config, and who has set it there."""
    from opd.config.explain import explain, overview

    if key is None:
        show_names(overview(), as_json)
        return
    if "=" in key:
        raise UserError(f"{key}: the first word is a setting's name, as in opd config explain optim.lr {quoted(key)}")
    named, overrides = split_settings(settings or [], {"conf"})
    try:
        found = explain(key, named.get("conf", "quickstart"), overrides)
    except UserError as error:
        raise error if "conf" in named else UserError(f"{error} (in conf=quickstart: no conf=NAME is given)") from error
    echo(json.dumps(asdict(found), indent=2, ensure_ascii=False) if as_json else found)


@config_app.command("show")
def config_show(
    name: str, settings: Annotated[list[str] | None, typer.Argument(help="Overrides.")] = None, as_json: Json = False
) -> None:
    """Print a config with every setting resolved, those left to their defaults too, and check it."""
    from opd.config.compose import load

    composed = load(name.removeprefix("conf="), settings or [])
    echo(json.dumps(composed.settings, indent=2, ensure_ascii=False) if as_json else composed.yaml.rstrip())


@config_app.command("cp")
def config_cp(name: str, file: Path) -> None:
    """Copy a config to FILE.yaml, to be changed and used as conf=FILE.yaml."""
    from opd.config.catalog import locate

    check_new(file)
    text = locate(name.removeprefix("conf=")).read_text(encoding="utf-8")
    with whole(file, follow=True) as part:
        part.write_text(text, encoding="utf-8")
    echo(f"wrote {file}; use it with:  opd train {quoted(f'conf={file}')}")


def check_new(file: Path) -> None:
    """UserError where a config cannot be written to a file, or one is there."""
    if file.suffix != ".yaml":
        raise UserError(f"{file}: allowed is a name that ends in .yaml")
    if file.exists():
        raise UserError(f"{file}: there is such a file already; name another one")
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}")
