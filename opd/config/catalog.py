"""The configs that ship, and where a config is; light, so that listing them answers at once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from opd import called
from opd.hints import among, nearest
from opd.places import typed
from opd.types import UserError

PACKAGED = called.PACKAGED
BASE = "base.yaml"
"""What every config that ships starts from; no other file is meant by it."""


def shipped() -> dict[str, str]:
    """Names of the configs that ship, each with the comment in its first line."""
    paths = sorted(p for p in PACKAGED.glob("*.yaml") if p.name != BASE)
    return {p.stem: p.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ") for p in paths}


def unnamed(overrides: Sequence[str]) -> UserError:
    """That no config is named, or that one is typed without its `conf=`."""
    if bare := next((text for text in overrides if "=" not in text and not text.startswith(("~", "-"))), ""):
        return UserError(f"{bare}: allowed is KEY=VALUE; a config is conf={bare}, a run run={bare}")
    return UserError(f"conf: must be given, as in conf=quickstart; there are {', '.join(shipped())}")


def groups() -> list[str]:
    """Config groups: the folders of `conf/`."""
    return sorted(d.name for d in PACKAGED.iterdir() if d.is_dir())


def options(group: str, beside: Path | None = None) -> list[str]:
    """What a group can be set to: the files that ship, and those in a folder of that name `beside` a user's config."""
    folders = [PACKAGED / group, *([beside / group] if beside else [])]
    return sorted({p.stem for folder in folders if os.path.isdir(folder) for p in folder.glob("*.yaml")})


def described(group: str, beside: Path = Path()) -> dict[str, str]:
    """What a group can be set to, each with its first comment; UserError where there is no such group."""
    if group not in groups():
        raise UserError(f"{group}: no such group{among(group, groups())}")
    return {name: _comment(option(group, name, beside)) for name in options(group, beside)}


def _comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((text.lstrip("# ") for text in lines if text.startswith("#") and "@package" not in text), "")


def option(group: str, name: str, beside: Path) -> Path:
    """The file of an option that there is."""
    own = beside / group / f"{name}.yaml"
    return own if own.is_file() else PACKAGED / group / f"{name}.yaml"


def having(group: str, key: str, filled: bool = False) -> list[str]:
    """Options that ship of what may be a group, and have a setting of that name; `filled`: which is not null."""
    begins = re.compile(rf"^{re.escape(key)}:{'(?! *null)' if filled else ''}", re.MULTILINE)
    files = {name: option(group, name, PACKAGED) for name in (options(group) if group in groups() else ())}
    return [name for name, file in files.items() if begins.search(file.read_text(encoding="utf-8"))]


def protocol(named: Mapping[str, str], beside: Path) -> str | None:
    """The published evaluation of the data that is named, its file's namesake; None where another is named, or none."""
    data = named.get("data")
    return data if "eval" not in named and data in options("eval", beside) else None


def locate(name: str) -> Path:
    """The file of `conf=name`: a shipped name, or a path. Raises UserError with the nearest match."""
    if not name:
        raise UserError(f"conf=: a name or a file must be given; there are {', '.join(shipped())}")
    if os.path.isfile(PACKAGED / f"{name}.yaml"):
        return PACKAGED / f"{name}.yaml"
    path = typed(name)
    if os.path.isfile(path):  # pathlib's own raises for names that no disk takes
        if path.suffix != ".yaml":
            raise UserError(f"conf={name}: allowed is a file whose name ends in .yaml")
        return path.resolve()
    if os.path.isdir(path):
        raise UserError(f"conf={name}: this is a folder, allowed is a name or a .yaml file; a run is named by run=DIR")
    if path.suffix == ".yaml" and path.parent == Path() and path.stem in shipped():
        return PACKAGED / path.name
    there = sorted(path.parent.glob("*.yaml")) if os.path.isdir(path.parent) else []
    beside = {p.stem: str(p) for p in there}
    near = difflib.get_close_matches(path.stem, beside, n=1)
    if near and not nearest(name, shipped()):
        raise UserError(f"conf={name}: no such config or file, did you mean {beside[near[0]]}?")
    raise UserError(f"conf={name}: no such config or file{among(name, shipped())}")
