"""Compose a config with Hydra and build it. The only importer of Hydra and OmegaConf.

Hydra does the choice of files (defaults lists, groups, the search path) and parses overrides; the values are set here,
on the composed tree, so that a key that the YAML leaves to its default can be given like any other. The schema judges
everything afterwards: no spelling of an override gets around it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from opd import catalog
from opd.hints import nearest, shown
from opd.types import UserError

if TYPE_CHECKING:
    from opd.settings import Config


@dataclass(frozen=True)
class Composed:
    """A checked config, with what it was made from."""

    config: Config
    settings: Mapping[str, Any]
    """Every setting, those left to their defaults too, as mappings, lists and scalars: `config` can be built from it."""
    overrides: tuple[str, ...]

    @property
    def yaml(self) -> str:
        """The settings as they go into the run directory, to be loaded again."""
        return OmegaConf.to_yaml(_escaped(self.settings))


def load(name: str, overrides: Sequence[str] = ()) -> Composed:
    """Compose, check and build `conf=name` (or a path) with Hydra overrides; reads no weight, writes nothing."""
    settings = compose(catalog.locate(name), overrides)
    from opd.schema import build, plain  # after composing: mistakes that Hydra finds need not wait for torch
    from opd.settings import Config

    config = build(Config, settings)
    return Composed(config, plain(config, Config), tuple(overrides))


def compose(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Resolved settings of a config file with overrides, not checked against the schema yet."""
    parsed = [_parse(text) for text in overrides]
    choices = [o for o in parsed if _is_choice(o, path.parent)]
    with (
        _errors(path),
        _primary(path, choices) as primary,
        initialize_config_dir(str(primary.parent), version_base="1.3"),
    ):
        search = [f"file://{folder}" for folder in (path.parent, catalog.PACKAGED)]
        quoted = ",".join("'" + s.replace("\\", "\\\\").replace("'", "\\'") + "'" for s in search)
        node = hydra_compose(primary.stem, [f"hydra.searchpath=[{quoted}]", *(str(o.input_line) for o in choices)])
    with _errors(path), open_dict(node):
        for o in parsed:
            if o not in choices:
                _set(node, o)
        _refuse_missing(node)
        settings = OmegaConf.to_container(node, resolve=True)
    return {str(k): v for k, v in settings.items()}  # type: ignore[union-attr]  (a mapping: _read saw to that)


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of overrides with several values (`optim.lr=1e-4,1e-5`), the last one changing fastest."""
    parsed = [_parse(text, several=True) for text in overrides]
    return [list(c) for c in itertools.product(*(_values(o) for o in parsed))]


def _values(o: Override) -> list[str]:
    if not o.is_sweep_override():
        return [str(o.input_line)]
    try:
        return [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()]
    except (HydraException, AssertionError, AttributeError) as e:  # glob(...) wants Hydra's own launcher
        raise UserError(
            f"{o.input_line}: allowed are values with commas between them, range(...) and choice(...)"
        ) from e


def _parse(text: str, several: bool = False) -> Override:
    """One override; UserError where it is none, or where it has several values and may not."""
    if "=" not in text and not text.startswith("~"):
        raise UserError(f"{text}: settings are written KEY=VALUE, as in conf=quickstart or optim.lr=1e-5")
    try:
        parsed: Override = OverridesParser.create().parse_override(text)
    except HydraException as e:
        key, _, value = text.partition("=")
        raise UserError(
            f"{text}: cannot be read; put a value with special characters into quotes twice: '{key}=\"{value}\"'"
        ) from e
    if parsed.key_or_group.split(".")[0] == "hydra":
        raise UserError(f"{text}: no such setting; Hydra's own settings have no effect here")
    if parsed.is_sweep_override() and not several:
        raise UserError(
            f"{text}: several values are allowed with --multirun only; a text with a comma is quoted twice: "
            f"'{parsed.get_key_element()}=\"a, b\"'"
        )
    return parsed


def _is_choice(o: Override, beside: Path) -> bool:
    """Whether an override picks a file of a group; UserError where there is no such file."""
    group, value = o.key_or_group, o.value()
    if o.is_delete() or isinstance(value, dict | list):
        return False
    files = catalog.options(group, beside) if re.fullmatch(r"[\w/]+", group) else []
    if not files or (group not in catalog.groups() and value not in files):
        return False
    if value not in files:
        raise UserError(
            f"{group}={shown(value)}: no such {group}{nearest(value, files) or ';'} there are {', '.join(files)}"
        )
    return True


@contextmanager
def _primary(path: Path, choices: Sequence[Override]) -> Iterator[Path]:
    """The file that Hydra starts from: `path`, or a copy in which `choices` are part of the defaults list.

    A run's own config.yaml has no defaults list: everything in it is resolved. A choice replaces what it has there.
    """
    node = _read(path)
    if "defaults" in node or not choices:
        yield path
        return
    kept = {k: v for k, v in node.items_ex(resolve=False) if k not in {o.key_or_group for o in choices}}
    kept["defaults"] = [*({o.key_or_group: o.value()} for o in choices), "_self_"]
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "config.yaml"
        OmegaConf.save(OmegaConf.create(kept), copy)
        choices[:] = []  # type: ignore[index]
        yield copy


def _read(path: Path) -> DictConfig:
    """The primary file itself; UserError where it is not what a config must be."""
    node = OmegaConf.load(path)
    if not isinstance(node, DictConfig):
        raise UserError(f"conf={path}: it holds a list, allowed is a mapping of settings")
    if "hydra" in node:
        raise UserError(f"conf={path}: hydra: no such setting; Hydra's own settings have no effect here")
    defaults = node.get("defaults")
    if defaults is not None and "_self_" not in defaults:
        raise UserError(
            f"conf={path}: defaults: must list _self_ too, last; else they override what the file itself sets"
        )
    return node


def _set(node: DictConfig, o: Override) -> None:
    """Apply one override that is not a choice of a file."""
    key = o.key_or_group
    if not o.is_delete():
        OmegaConf.update(node, key, o.value(), merge=True, force_add=True)
        return
    parent, _, name = key.rpartition(".")
    holder = OmegaConf.select(node, parent) if parent else node
    if not isinstance(holder, DictConfig) or name not in holder:
        there = list(map(str, holder)) if isinstance(holder, DictConfig) else []
        raise UserError(f"~{key}: there is no such key to leave out{nearest(name, there)}")
    del holder[name]


def _refuse_missing(node: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(node))
    if missing:
        also = "".join(f"; {key} too" for key in missing[1:])
        raise UserError(f"{missing[0]}: must be given, as in {missing[0]}=VALUE{also}")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML say into one line."""
    try:
        yield
    except OmegaConfBaseException as e:
        key = f"{e.full_key}: " if e.full_key else f"conf={path}: "
        raise UserError(key + str(e).splitlines()[0]) from e
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f"conf={path}: {mark.name}, line {mark.line + 1}" if mark else f"conf={path}"
        raise UserError(f"{where}: this is not YAML: {e.problem}") from e
    except (YAMLError, OSError, UnicodeDecodeError) as e:
        raise UserError(f"conf={path}: it cannot be read: {' '.join(str(e).split())}") from e
    except (HydraException, ValueError) as e:
        raise UserError(_of_hydra(path, str(e))) from e


def _of_hydra(path: Path, text: str) -> str:
    unknown = re.search(r"Could not find '([\w/]+)/([\w.-]+)'", text)
    if unknown:
        group, given = unknown.groups()
        files = catalog.options(group, path.parent)
        return (
            f"conf={path}: {group}={given}: no such {group}{nearest(given, files) or ';'} there are {', '.join(files)}"
        )
    return f"conf={path}: {' '.join(text.split())}"


def _escaped(value: Any) -> Any:
    """Texts that hold `${` by themselves, in the spelling that reads back as such."""
    if isinstance(value, Mapping):
        return {k: _escaped(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(v) for v in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
