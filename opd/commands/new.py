"""`opd new`: a small part of one's own that works as it is, with its YAML and test, to be changed."""

from __future__ import annotations

import importlib.util
import keyword
from pathlib import Path
from typing import Annotated

import typer

from opd.config.arguments import Debug, echo
from opd.disk import whole, writing
from opd.hints import among, quoted
from opd.types import UserError

STARTERS = Path(__file__).resolve().parent.parent / "starters"
GROUPS = {"objective": "objective", "task": "data", "teacher": "teacher", "source": "source"}
"""Kinds of parts, each with the setting that names it."""


def new(
    kind: Annotated[str, typer.Argument(metavar="objective|task|teacher|source", show_default=False)],
    name: Annotated[str, typer.Argument(help="Of its Python module.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")] = Path(),
    debug: Debug = False,
) -> None:
    """Write a small part of your own that works as it is: NAME.py, NAME.yaml and test_NAME.py."""
    echo(written(kind, name, out))


def written(kind: str, name: str, out: Path) -> str:
    """Write the part `name` into the folder `out`; returns what to say of it.

    Raises:
        UserError: there is no such kind, the name cannot be a module's, or a file is there already; nothing is written.
    """
    if kind not in GROUPS:
        raise UserError(f"opd new {kind}: no such kind of part{among(kind, GROUPS)}")
    if not name.isidentifier() or keyword.iskeyword(name) or not name.strip("_"):
        raise UserError(f"opd new {kind} {name}: allowed is the name of a Python module, as in my_{kind}")
    files = {out / file: text for file, text in texts(kind, name).items()}
    if there := [str(file) for file in files if file.exists()]:
        raise UserError(f"{', '.join(there)}: there is such a file already; give another name, or another --out")
    if (other := importlib.util.find_spec(name)) is not None:
        raise UserError(
            f"opd new {kind} {name}: there is a module of that name, {other.origin or 'a package'}, which yours would "
            f"hide or be hidden by; as in my_{kind}"
        )
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        with whole(file, follow=True) as part:
            part.write_text(text, encoding="utf-8")
    there = [f"  cd {quoted(str(out))}"] if out.resolve() != Path.cwd() else []
    ways = [f"python -m pytest test_{name}.py", f"opd train conf=quickstart {GROUPS[kind]}={name}.yaml steps=20"]
    return "\n".join([f"wrote {', '.join(map(str, files))}; next:", *there, *(f"  {way}" for way in ways)])


def texts(kind: str, name: str) -> dict[str, str]:
    """The files of a new part, by their names."""
    cls = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    changes = {f"opd.starters.{kind}": name, f"{kind}.yaml": f"{name}.yaml", "Starter": cls, "starter:": f"{name}:"}
    made = {}
    for file in (f"{kind}.py", f"{kind}.yaml", f"test_{kind}.py"):
        text = (STARTERS / file).read_text(encoding="utf-8")
        for old, now in changes.items():
            text = text.replace(old, now)
        made[file.replace(kind, name)] = text
    return made
