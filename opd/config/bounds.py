"""How much a config may hold, counted before anything is made of it: a few words can stand for gigabytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from opd.config import catalog
from opd.types import UserError

LARGEST = 2**21
"""Bytes of a file."""
DEEPEST = 50
"""Lists and mappings within each other."""
MOST = 100_000
"""Settings, with all aliases written out."""
LONGEST = 2**22
"""Characters, with all references written out."""
MAPPING = "a mapping of settings; see opd config show quickstart"
ODD = re.compile(r"[-+]?(0[0-7_]+|[1-9][\d_]*(:[0-5]?\d)+(\.[\d_]*)?)")
"""Numbers that YAML 1.1 reads in other bases than they look like: 010 is 8, and 1:30 is 90."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REFERENCE = re.compile(r"\$\{(\.*)([^${}:]+)\}")


def check_files(primary: Path, picked: Sequence[str], beside: Path) -> None:
    """Refuse a config whose file, or one beside it that it names, holds more than a config can.

    Args:
        primary: the file.
        picked: the options that are chosen, `optim=mine`.
        beside: where the user's own files lie.
    """
    names = {re.split(r"[=@]", text)[-1] for text in picked}
    files, seen = [primary], set()
    while files:
        file = files.pop()
        seen.add(file)
        names |= set(check_file(file))
        if beside != catalog.PACKAGED:
            files += [f for f in _called(names, beside) if f not in seen]


def _called(names: set[str], beside: Path) -> Iterator[Path]:
    groups = {*catalog.groups(), *names}
    folders = [beside, *(d for d in beside.iterdir() if d.name in groups and d.is_dir())]
    for name in names:
        yield from (
            file for folder in folders if (file := folder / f"{name}.yaml").is_file() and file != beside / catalog.BASE
        )


def check_file(file: Path) -> list[str]:
    """Refuse a file that holds more than a config can; returns the words in it that may be names of others.

    What is no YAML is left to whoever reads it.
    """
    if (size := file.stat().st_size) > LARGEST:
        raise UserError(f"conf={file}: it has {size} bytes, allowed are {LARGEST}; a config is settings alone")
    try:
        return check_text(file, file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return []


def check_text(file: Path, text: str) -> list[str]:
    """The same of a file's text that was read already."""
    try:
        return list(_words(file, text))
    except yaml.YAMLError:
        return []


def _words(file: Path, text: str) -> Iterator[str]:
    open_: list[tuple[str | None, int]] = []
    """The anchor and the size so far of each collection that is not at its end."""
    sizes: dict[str, int] = {}
    total = 0
    for event in yaml.parse(text, Loader=_LOADER):
        size = 0
        if isinstance(event, yaml.CollectionStartEvent):
            if len(open_) == DEEPEST:
                raise UserError(_at(file, event, f"it is nested too deeply; allowed is {DEEPEST} deep"))
            open_.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_.pop()
            if anchor:
                sizes[anchor] = size
        elif isinstance(event, yaml.ScalarEvent):
            if (
                not open_ and event.value
            ):  # OmegaConf takes it for the name of a setting, or reads what is in its quotes
                raise UserError(f"conf={file}: it holds a word, allowed is {MAPPING}")
            size = 1
            if not event.style and ODD.fullmatch(event.value):
                raise UserError(
                    _at(file, event, f"{event.value} is read in base 8 or 60; write the number in tens, or in quotes")
                )
            if event.anchor:
                sizes[event.anchor] = 1
            if re.fullmatch(r"[\w.+-]{1,200}", event.value):
                yield event.value
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_):
                raise UserError(_at(file, event, f"*{event.anchor} stands within itself; write out what is meant"))
            size = sizes.get(str(event.anchor), 0)
        if size and open_:
            anchor, before = open_[-1]
            open_[-1] = anchor, before + size
            total = before + size
        if total > MOST:
            raise UserError(
                _at(file, event, f"its aliases stand for more than {MOST} settings; write out what is meant")
            )


def _at(file: Path, event: yaml.Event, problem: str) -> str:
    return f"conf={file}: line {event.start_mark.line + 1}: {problem}"


def check_references(tree: Any) -> None:
    """Refuse settings that refer to others which refer to others, until they are longer than any config."""
    sizes: dict[str, int] = {}

    def size_of(value: Any, path: str) -> int:
        if isinstance(value, Mapping):
            return sum(1 + size_of(v, f"{path}.{k}" if path else str(k)) for k, v in value.items())
        if isinstance(value, list):
            return sum(1 + size_of(v, f"{path}[{i}]") for i, v in enumerate(value))
        if not isinstance(value, str):
            return 1
        size = len(value) + sum(named(found[1], found[2], path) for found in _REFERENCE.finditer(value))
        if size > LONGEST:
            raise UserError(
                f"{path}={value[:60]}: what it refers to refers to others, for more than {LONGEST} characters; write "
                "out what is meant"
            )
        return size

    def named(dots: str, name: str, at: str) -> int:
        parents = at.split(".")[: -len(dots)] if dots else []
        path = ".".join([*parents, name.strip()])
        if path not in sizes:
            sizes[path] = 0  # one that refers to itself is told of by whoever resolves it
            sizes[path] = size_of(_value(tree, path), path)
        return sizes[path]

    size_of(tree, "")


def _value(tree: Any, path: str) -> Any:
    for name in re.findall(r"[^.\[\]]+", path):
        if isinstance(tree, Mapping):
            tree = tree.get(name)
        elif isinstance(tree, list):
            tree = tree[int(name)] if name.isdecimal() and int(name) < len(tree) else None
        else:
            return None
    return tree
