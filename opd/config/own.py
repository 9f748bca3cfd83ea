"""Parts of one's own that a text names: `objective=mine.yaml`, `objective=mine.Mine`, `data=rows.jsonl`.

On the command line or in a config's file. A file or class takes the place of the part that is there, whose settings
would not fit; one of the same class, or of none, changes the settings that it names.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from opd.config import catalog
from opd.config.files import mapping, option_alone, read
from opd.config.mistakes import one_line
from opd.config.overrides import is_choice, is_own, is_rows, parse
from opd.config.part import BY_FILE, FILES, MODELS, escaped
from opd.config.trust import classes_in
from opd.hints import nearest
from opd.places import typed
from opd.plain import flat
from opd.tasks.readers import kind_of
from opd.types import UserError

BASE = "rows"
"""The data whose other settings hold beside tasks of one's own."""
DATA = "opd.data.prompts.Data"


@dataclass(frozen=True)
class Own:
    """What is left of overrides without those that name parts of one's own, and these parts."""

    overrides: Sequence[str] = ()
    parts: Mapping[str, DictConfig] = field(default_factory=dict)
    """By where they stand."""
    models: Path | None = None
    """The file of presets."""
    data: DictConfig | None = None
    """Settings that go over those of `data`, in place of its tasks."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The file of each part that has one."""
    notes: tuple[str, ...] = ()
    """What was made of files of rows, for people."""

    @property
    def places(self) -> Mapping[str, str]:
        """The file of every setting that is in one of them, or of the part that it is in."""
        there = OmegaConf.to_container(mapping(self.models), resolve=False) if self.models else {}
        return {**self.files, **{at: str(self.models) for at, _ in flat(there) if at}}

    @property
    def classes(self) -> frozenset[str]:
        """Every class that is named."""
        nodes = [*self.parts.values(), *([self.data] if self.data is not None else [])]
        nodes += [mapping(self.models)] if self.models else []
        return frozenset(name for n in nodes for name in classes_in(OmegaConf.to_container(n, resolve=False)))


def own(overrides: Sequence[str], beside: Path) -> Own:
    """Read the parts that overrides name; of several for one place the last counts.

    Raises:
        UserError: there is no such file, or it is none that a part can be.
    """
    data = [text for text in overrides if text.startswith("data=")]
    rows = [text for text in data if is_rows(text[5:], beside)]  # of any path: it is not parsed
    chosen = rows[-1][5:] if rows and rows[-1] == data[-1] else None
    parsed = [parse(text) for text in overrides if text not in (data if chosen else rows)]
    last = {_at(o): o for o in parsed if is_own(o, beside) or is_choice(o, beside)}
    named = {at: o for at, o in last.items() if is_own(o, beside)}
    rest = [str(o.input_line) for o in parsed if _at(o) not in named and not is_own(o, beside)]
    texts = {at: str(o.value()) for at, o in named.items()}
    files = {at: text for at, text in texts.items() if text.endswith(FILES)}
    whole, models = chosen or texts.pop("data", None), _presets(texts.pop(MODELS, None))
    parts = {at: _part(named[at].key_or_group, text) for at, text in texts.items()}
    if whole is None:
        return Own(rest, parts, models, files=files)
    node, notes = _data(whole, {o.key_or_group: o.value() for o in parsed if not o.is_delete()})
    if "tasks" not in node:
        return Own(rest, parts | {"data": node}, models, files=files)
    return Own([f"data={BASE}", *rest], parts, models, node, files, notes)


def _presets(text: str | None) -> Path | None:
    """The file that `models=` names, if it does; UserError where it cannot be one of presets."""
    if text is None:
        return None
    with _named(MODELS, text) as path:
        if path.suffix == ".py":
            raise UserError(f"conf={path}: allowed is a .yaml file of settings")
        mapping(path)
    return path.resolve()


def texts_in(path: Path, overrides: Sequence[str]) -> list[str]:
    """Parts that a config's file names by a text, as overrides; without those that are given on the command line."""
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    with one_line(path):
        there = {str(k): v for k, v in read(path).items_ex(resolve=False) if isinstance(v, str) and v != "???"}
    return [f"{key}={text}" for key, text in there.items() if key in BY_FILE and key not in given]


def _at(o: Override) -> str:
    return str(o.package or o.key_or_group)


def _part(key: str, text: str) -> DictConfig:
    """The settings of a class, or of a file."""
    if not text.endswith(FILES):
        return OmegaConf.create({"_target_": text})
    with _named(key, text) as path:
        if path.suffix == ".py":
            raise UserError(f"conf={path}: the class in it is to be named, as in {key}={_class_in(path)}")
        node = mapping(path)
        return _with_defaults(key.split(".")[0], path) if "defaults" in node else node


def _with_defaults(group: str, path: Path) -> DictConfig:
    """An option's file with what its own list of defaults brings, from the options that ship."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / group / f"{path.stem}.yaml"
        copy.parent.mkdir()
        shutil.copy(path, copy)
        with one_line(path):
            return option_alone(group, path.stem, Path(folder))


@contextmanager
def _named(key: str, text: str) -> Iterator[Path]:
    """The file that a text names; what is wrong in it is said of the setting that names it."""
    path = typed(text)
    if not path.is_file():
        near = nearest(path.stem, catalog.options(key)) or nearest(path.name, (p.name for p in _beside(path)))
        raise UserError(f"{key}={text}: no such file{near or f' in {Path.cwd()}'}")
    try:
        with one_line(path):
            yield path
    except UserError as error:
        named = re.compile(rf"^conf=.*?{re.escape(path.name)}:")
        raise UserError(named.sub(lambda _: f"{key}={text}:", str(error))) from error


def _beside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []


def _class_in(path: Path) -> str:
    """The first class of a module, as it is named from here."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError):
        body = []
    name = next((node.name for node in body if isinstance(node, ast.ClassDef)), "NAME")
    return ".".join([*path.with_suffix("").parts, name])


def _data(text: str, given: Mapping[str, Any]) -> tuple[DictConfig, tuple[str, ...]]:
    """Settings of data that is a file of rows, a task, or a file of either; `given`: what is typed beside it."""
    if kind_of(text):
        from opd.tasks.guess import guess

        found = guess(text, given)
        return OmegaConf.create({"tasks": {found.name: escaped(found.settings)}}), (found.said,)
    node = _part("data", text)
    target = str(node.get("_target_", DATA))
    if target == DATA:
        return node, ()
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", target.rpartition(".")[2]).lower()
    return OmegaConf.create({"tasks": {name: node}}), (f"{text} is data.tasks.{name}",)
