"""Arguments that the commands share: `conf=NAME`, `run=DIR` and overrides, and the usual flags."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from opd.hints import printable
from opd.types import UserError


def complete(incomplete: str) -> list[str]:
    """What a shell offers for a half-typed setting: configs for `conf=`, files for a group, else what may be named."""
    from opd.config.catalog import groups, options, shipped

    key, equals, _ = incomplete.partition("=")
    values = shipped() if key == "conf" else options(key)
    offered = [f"{key}={v}" for v in values] if equals else ["conf=", "run=", *(f"{g}=" for g in groups())]
    return [o for o in offered if o.startswith(incomplete)]


Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[conf=NAME|run=DIR] [KEY=VALUE]...",
        help="conf=NAME or conf=FILE.yaml picks a config; run=DIR a run; all others are Hydra overrides.",
        show_default=False,
        autocompletion=complete,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and the last line.")]
Parts = Annotated[
    list[str] | None,
    typer.Option("--parts", help="A module or package that a run's config may name; may be given several times."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the engine's own log.")]


def _say_version(wanted: bool) -> None:
    if wanted:
        echo(importlib.metadata.version("opd"))
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_say_version)]


def split_settings(settings: Sequence[str], names: set[str]) -> tuple[dict[str, str], list[str]]:
    """Part `conf=`, `run=` and the like from the Hydra overrides."""
    named: dict[str, str] = {}
    overrides = []
    for item in settings:
        key, equals, value = item.partition("=")
        if not equals or key not in names:
            overrides.append(item)
        elif key in named:
            raise UserError(f"{item}: allowed is one, and {named[key]} is given too")
        elif not value:
            raise UserError(f"{item}: a value must be given, as in {key}=VALUE")
        else:
            named[key] = value
    return named, overrides


def echo(text: object) -> None:
    """Print a result on stdout, with what would drive a terminal spelled out; JSON stays the same JSON."""
    typer.echo(printable(str(text), keep="\n\t"))


def show_names(texts: Mapping[str, str], as_json: bool) -> None:
    """Print names, each with what is to be said of it."""
    width = max(map(len, texts), default=0) + 1
    lines = (f"{name:{width}} {text}" for name, text in texts.items())
    echo(json.dumps(texts, indent=2) if as_json else "\n".join(lines))
