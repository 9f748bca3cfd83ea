"""What Hydra, OmegaConf and YAML say of a config, as one line for its writer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from opd.config import catalog
from opd.config.files import put_together, read
from opd.hints import among, nearest
from opd.types import UserError

WITHIN = {"weight": "objective=share weight@objective.terms.all.tokens.first=cap"}
"""How an option is chosen of a group that is no part of a run, but of one of its parts."""


@contextmanager
def one_line(path: Path, given: Collection[str] = ()) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML say into one line, with file and setting.

    Args:
        path: The config's file.
        given: Settings that the command line gives: of these, the file is not named.
    """
    try:
        yield
    except OmegaConfBaseException as e:
        key = str(e.full_key or "")
        file = "" if key and any(within(key, own) for own in given) else f"conf={path}: "
        raise UserError(f"{file}{key}{': ' if key else ''}{of_omegaconf(str(e))}") from e
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f"conf={mark.name}: line {mark.line + 1}" if mark else f"conf={path}"
        raise UserError(f"{where} is not YAML: {e.problem}") from e
    except (HydraException, ValueError) as e:
        said = of_hydra(str(e), path.parent).removeprefix(f"{path.stem}.yaml: ")
        raise UserError(f"conf={path}: {said}") from e
    except RecursionError as e:
        raise UserError(
            f"conf={path}: defaults: they lead back to where they began; a config that starts from {path.stem} needs "
            "another name than that, and so does an option of a group"
        ) from e
    except (YAMLError, OSError) as e:
        raise UserError(f"conf={path}: it cannot be read: {' '.join(str(e).split())}") from e


def within(key: str, other: str) -> bool:
    """Whether one of two settings is the other, or holds it."""
    return f"{key}.".startswith((f"{other}.", f"{other}[")) or other.startswith((f"{key}.", f"{key}["))


def of_omegaconf(text: str) -> str:
    """What OmegaConf says of a value, in words of configs."""
    first = text.splitlines()[0] if text else "it cannot be read"
    if variable := re.search(r"Environment variable '(.*)' not found", first):
        name = variable[1]
        return f"there is no environment variable {name}; set it, or say what else: ${{oc.env:{name},DEFAULT}}"
    if function := re.match(r"Unsupported interpolation type (.*)", first):
        return (
            f"${{{function[1]}:...}}: no such function; allowed are ${{KEY}} of another setting, and ${{oc.env:NAME}}"
        )
    if re.match(r"(no viable alternative|token recognition|mismatched|extraneous|missing '?}|.*\$\{)", first):
        return (
            "a ${ begins the name of another setting, as in ${student.model}, and here it has none; in a text that "
            "shall have it, write \\${"
        )
    if first.startswith("Recursive interpolation"):
        return "it refers to itself; name another setting in its ${...}"
    if re.match(r"Cannot merge (Dict|List)Config with (Dict|List)Config", first):
        return "a list is given where a mapping of settings is allowed, or the other way round"
    return first


def of_hydra(text: str, beside: Path) -> str:
    """What Hydra says of a defaults list, with the nearest match and without its search path."""
    if failed := re.match(r"In '([^']*)': \w+ raised while composing config:\s*", text):
        why = of_omegaconf(text[failed.end() :])
        return f"{failed[1]}.yaml: {', '.join(clashes(failed[1], beside)) or 'one of its settings'}: {why}"
    if unknown := re.search(r"Could not find '([\w/]+)/([\w.-]+)'", text):
        group, given = unknown.groups()
        return f"defaults: {group}={given}: no such {group}{among(given, catalog.options(group, beside))}"
    if unknown := re.search(r"Could not load '([\w/.-]+)'", text):
        return f"defaults: no such config {unknown[1]}{among(unknown[1], ['base', *catalog.shipped()])}"
    if unknown := re.search(r"Could not override '([\w/@.-]+)'", text):
        group = unknown[1]
        near = f"; allowed is {WITHIN[group]}" if group in WITHIN else nearest(group, catalog.groups())
        if group in catalog.groups() and group not in WITHIN:
            near = f"; add one to the list, as in  - {group}: OPTION"
        return f"defaults: there is no {group} to override{near}"
    return text.split("Config search path")[0]


def clashes(name: str, beside: Path) -> list[str]:
    """The settings of a config's file that are lists where mappings are, or mappings where lists are."""
    file = next((f for f in (beside / f"{name}.yaml", catalog.PACKAGED / f"{name}.yaml") if f.is_file()), None)
    if file is None or (node := read(file)).get("defaults") is None:
        return []
    own = {str(k): v for k, v in node.items_ex(resolve=False) if k != "defaults"}
    with TemporaryDirectory() as folder:  # what it starts from, without anything of its own
        bare = Path(folder) / "config.yaml"
        OmegaConf.save(OmegaConf.create({"defaults": node.defaults}), bare)
        return list(_other_kind(own, put_together(bare, [], beside), ""))


def _other_kind(own: Any, base: Any, path: str) -> Iterator[str]:
    """Paths of the settings that are of another kind in `base`."""
    for key, value in own.items():
        at, there = f"{path}.{key}" if path else str(key), base.get(key)
        if isinstance(value, DictConfig) and isinstance(there, DictConfig):
            yield from _other_kind(value, there, at)
        elif {type(value), type(there)} == {DictConfig, ListConfig}:
            yield at
