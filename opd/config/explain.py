"""What a setting means, what it may be, what it is in a config, and which file or argument has set it."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from opd.config import catalog
from opd.config.annotations import describe
from opd.config.catalog import having
from opd.config.compose import draft
from opd.config.files import in_hydra, starting_from
from opd.config.mistakes import within
from opd.config.overrides import is_choice, parse
from opd.config.part import GIVEN, MODELS
from opd.config.settings import Config
from opd.config.words import here
from opd.hints import nearest, shown
from opd.types import UserError


@dataclass(frozen=True)
class Explained:
    """A setting, or a part with settings of its own."""

    key: str
    value: str
    """As it would be typed; of a part its class."""
    meaning: str
    """What its class says of it; empty: nothing."""
    allowed: str
    default: str
    """Of the class; empty: it must be given."""
    origin: str
    """Who has set it."""
    settings: Mapping[str, str]
    """Of a part: its settings, each with the first line of what it means."""
    options: Sequence[str]
    """Of a group: the files to choose from."""

    def __str__(self) -> str:
        lines = [f"{self.key} = {self.value}"]
        lines += [f"  {line}" for line in self.meaning.splitlines()]
        facts = {
            "allowed": self.allowed,
            "default": self.default,
            "from": self.origin,
            "one of": ", ".join(self.options),
        }
        lines += [f"  {name + ':':9} {fact}" for name, fact in facts.items() if fact]
        width = max(map(len, self.settings), default=0)
        lines += ["  settings:", *(f"    {k:{width}}  {v}" for k, v in self.settings.items())] if self.settings else []
        return "\n".join(lines)


def explain(key: str, name: str, overrides: Sequence[str] = ()) -> Explained:
    """Explain a setting of `conf=name` with overrides.

    Raises:
        UserError: there is no such config, or no such setting in it.
    """
    made = draft(name, overrides)
    composed = made.checked()
    holder, field = _found(composed.config, key)
    value = _at(composed.config, key)
    hint = typing.get_type_hints(holder, include_extras=True)[field] if field else Any
    part = is_dataclass(value)
    begins = default(holder, field) if field else ""
    group = key.replace(".", "/")
    return Explained(
        key, f"{type(value).__module__}.{type(value).__name__}" if part else shown(_at(composed.settings, key)),
        (inspect.getdoc(type(value)) or "") if part else docs(holder).get(field, "") or _comment(key, made.path),
        "" if part or hint is Any else describe(hint), begins, origin(key, made.path, overrides, made.own.models),
        _settings(value, key, made.path) if part else {},
        catalog.options(group, made.path.parent) if group in catalog.groups() else (),
    )  # fmt: skip


def overview() -> dict[str, str]:
    """What a config has at its top, each with what is said of it first."""
    said, kinds = docs(Config), typing.get_type_hints(Config)
    return {f.name: first_sentence(said.get(f.name) or inspect.getdoc(kinds[f.name]) or "") for f in fields(Config)}


def first_sentence(meaning: str) -> str:
    """The first sentence."""
    return re.split(r"(?<=[.;]) ", " ".join(meaning.split()))[0].rstrip(";.")


def _found(config: Config, key: str) -> tuple[type[Any], str]:
    """The class that a setting belongs to, and its name there; that of a mapping's key is empty."""
    node: Any = config
    holder: type[Any] = Config
    field = ""
    for i, name in enumerate(names := key.split(".")):
        there = (
            [f.name for f in fields(node)] if is_dataclass(node) else list(node) if isinstance(node, Mapping) else []
        )
        if name not in there:
            at = ".".join(names[:i])
            listed = ", ".join(there)
            has = f"{at} has {listed}" if there else f"{at} has no settings of its own"
            if word := here(name):
                near = f", here it is {word};"
            elif others := _elsewhere(names, i, node):
                near = f", {names[0]}={' or '.join(others)} has it: opd config explain {key} {names[0]}={others[0]};"
            elif deeper := [] if at else _deeper(config, name):  # `lr`: right name, wrong place
                near = f", did you mean {' or '.join(deeper)}?"
            else:
                near = nearest(name, there) or ";"
            raise UserError(f"{key}: no such setting{near} {has if at else f'allowed here: {listed}'}")
        holder, field = (type(node), name) if is_dataclass(node) else (holder, "")
        node = getattr(node, name) if is_dataclass(node) else node[name]
    return holder, field


def _elsewhere(names: Sequence[str], at: int, node: Any) -> list[str]:
    """Options of a part that have a setting which the one that is chosen has not, or leaves empty."""
    if at == 1 or (at and node is None):
        return having(names[0], names[1], filled=node is None)
    return []


def _deeper(config: Config, name: str) -> list[str]:
    """Parts of a config that have a setting of this name, with it."""
    parts = {f.name: getattr(config, f.name) for f in fields(config)}
    return [f"{at}.{name}" for at, p in parts.items() if is_dataclass(p) and name in (f.name for f in fields(p))]


def _at(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = node[name] if isinstance(node, Mapping) else getattr(node, name)
    return node


def _settings(part: Any, key: str, path: Path) -> dict[str, str]:
    """The settings of a part: what each is, and the first sentence of what it means."""
    said = docs(type(part))
    found = {}
    for f in (f for f in fields(part) if f.init):
        meaning = first_sentence(said.get(f.name) or _comment(f"{key}.{f.name}", path))
        inner = getattr(part, f.name)
        value = type(inner).__name__ if is_dataclass(inner) else shown(inner)
        found[f.name] = f"{value:12}  {meaning}".rstrip()
    return found


def _comment(key: str, path: Path) -> str:
    """What stands behind a setting in the files of its group that ship."""
    group, _, inner = key.partition(".")
    files = [path, *(catalog.option(group, name, path.parent) for name in catalog.options(group, path.parent))]
    found = (re.search(rf"^\s*{re.escape(key if file == path else inner)}:[^#\n]*#\s*(.+)$", text, re.MULTILINE)
             for file in files for text in [file.read_text(encoding="utf-8")])  # fmt: skip
    return next((match[1] for match in found if match), "")


def default(holder: type, name: str) -> str:
    """The default of a setting, as it would be typed; empty where it must be given, or is a part."""
    (field,) = [f for f in fields(holder) if f.name == name]
    if field.default is not MISSING:
        return shown(field.default) if not is_dataclass(field.default) else ""
    made = None if field.default_factory is MISSING else field.default_factory()
    return "" if made is None or is_dataclass(made) else shown(made)


def docs(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, those of its bases too; empty where its source is not to be had."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base))) if is_dataclass(base) else None
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if tree is not None and isinstance(tree.body[0], ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = inspect.cleandoc(str(ast.literal_eval(text.value)))
    return found


def origin(key: str, path: Path, overrides: Sequence[str], models: Path | None = None) -> str:
    """Who has set a setting last: an argument, or a file; empty: nobody, it is the default of its class."""
    parsed = [parse(text) for text in overrides]
    choices = [o for o in parsed if is_choice(o, path.parent)]
    choices += [parse(f"{MODELS}={GIVEN}")] if models else []
    for o in reversed(parsed):
        if o not in choices and (within(key, o.key_or_group) or within(o.key_or_group, key)):
            return str(o.input_line)
    with starting_from(path, choices) as start, in_hydra(start.primary, path.parent, models) as search:
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        merged = hydra.config_loader.compute_defaults_list(
            start.primary.stem, [search, *start.picked], RunMode.RUN
        ).defaults
        for file in reversed(merged):
            if (found := _file(file, start.primary, path, models)) and _sets(file, found, key):
                return str(found)
    return ""


def _file(result: ResultDefault, primary: Path, path: Path, models: Path | None) -> Path | None:
    """The file of an entry of Hydra's list."""
    if result.config_path is None or result.config_path.startswith("hydra/"):
        return None
    if result.config_path == primary.stem:
        return path
    if models is not None and result.config_path == f"{MODELS}/{GIVEN}":
        return models
    places = (folder / f"{result.config_path}.yaml" for folder in (path.parent, catalog.PACKAGED))
    return next((place for place in places if place.is_file()), None)


def _sets(result: ResultDefault, file: Path, key: str) -> bool:
    """Whether a file says something of a setting, or of what it holds."""
    package = result.package or ""
    if package and not within(key, package):
        return False
    inner = key[len(package) :].lstrip(".")
    node = OmegaConf.load(file)
    return not inner or OmegaConf.select(node, inner, throw_on_missing=False) is not None or _null(node, inner)


def _null(node: Any, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    holder = OmegaConf.select(node, parent) if parent else node
    return isinstance(holder, Mapping) and name in holder
