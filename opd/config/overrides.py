"""What is typed behind a config: Hydra's overrides, parsed, told apart, and put into the composed tree."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from opd.config import catalog
from opd.config.part import names_part
from opd.hints import among, nearest, shown
from opd.places import typed
from opd.tasks.readers import SUFFIXES, kind_of
from opd.types import UserError

LONGEST, DEEPEST = 20_000, 200
"""Characters of an override, and brackets of a kind in it: beyond these its parser takes minutes, or all the stack."""


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of overrides with several values (`optim.lr=1e-4,1e-5`), the last one changing fastest."""
    parsed = [parse(text, several=True) for text in overrides]
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


def parse(text: str, several: bool = False) -> Override:
    """One override; UserError where it is none, or where it has several values and may not."""
    key, equals, value = text.partition("=")
    if not (equals or text.startswith("~")) or not key or " " in key or value.startswith(" "):
        raise UserError(
            f"{text}: settings are written KEY=VALUE without spaces, as in conf=quickstart or optim.lr=1e-5"
        )
    if not re.match(r"[~+]{0,2}[A-Za-z_]", key):
        raise UserError(f"{text}: no setting's name begins so; a prompt or another text needs its flag before it")
    if "[" in key:
        raise UserError(f"{text}: an element of a list is not set alone; give the list, as in optim.betas=[0.9,0.95]")
    if len(text) > LONGEST or max((text.count(c) for c in "[{($\\"), default=0) > DEEPEST:
        raise UserError(
            f"{text[:60]}...: it is too long for an override; write it into a config, and give conf=FILE.yaml"
        )
    try:
        parsed: Override = OverridesParser.create().parse_override(text)
    except RecursionError as e:
        raise UserError(f"{text[:60]}: it is nested too deeply; write it into a config, and give conf=FILE.yaml") from e
    except (HydraException, ValueError) as e:  # an integer of thousands of digits
        wrong = "its brackets do not match" if value[:1] in "[{$" else "it has special characters"
        raise UserError(f"{text}: {wrong}; a text that shall have them is quoted twice: '{key}=\"{value}\"'") from e
    if parsed.key_or_group.split(".")[0] == "hydra":
        raise UserError(f"{text}: no such setting; Hydra's own settings have no effect here")
    if parsed.is_sweep_override() and not several:
        raise UserError(
            f"{text}: several values are allowed with --multirun only; a text with commas is quoted twice: "
            f"'{key}=\"{value}\"'"
        )
    return parsed


def is_choice(o: Override, beside: Path) -> bool:
    """Whether an override picks a file of a group; UserError where there is no such file."""
    group, value = o.key_or_group, o.value()
    if o.is_delete() or isinstance(value, dict | list):
        return False
    files = catalog.options(group, beside) if re.fullmatch(r"[\w/]+", group) else []
    if not files or (group not in catalog.groups() and value not in files) or is_own(o, beside):
        return False
    if value not in files:
        if group == "data" and typed(str(value)).exists():
            told = (
                f"a folder of them:  data=everyday data.tasks.everyday.path={shown(value)}"
                if typed(str(value)).is_dir()
                else "write them as one"
            )
            raise UserError(f"data={shown(value)}: it is there, and is no file of rows ({', '.join(SUFFIXES)}); {told}")
        raise UserError(f"{group}={shown(value)}: no such {group}{among(value, files)}")
    return True


def is_own(o: Override, beside: Path) -> bool:
    """Whether an override names a part of one's own by its file or class; what ships goes before files of that name."""
    key, value = o.key_or_group, o.value()
    if o.is_delete() or value in catalog.options(key, beside):
        return False
    return names_part(key, value) or (key == "data" and isinstance(value, str) and is_rows(value, beside))


def is_rows(value: str, beside: Path) -> bool:
    """Whether data is a file of rows."""
    return kind_of(value) is not None and value not in catalog.options("data", beside)


def put(node: DictConfig, o: Override) -> None:
    """Apply one override that is not a choice of a file."""
    key = o.key_or_group
    if not o.is_delete():
        try:
            OmegaConf.update(node, key, o.value(), merge=True, force_add=True)
        except (ValueError, IndexError) as error:
            raise UserError(f"{o.input_line}: {key.rpartition('.')[0]} is a list, which is given whole") from error
        return
    parent, _, name = key.rpartition(".")
    holder = OmegaConf.select(node, parent) if parent else node
    if not isinstance(holder, DictConfig) or name not in holder:
        there = list(map(str, holder)) if isinstance(holder, DictConfig) else []
        raise UserError(f"~{key}: there is no such key to leave out{nearest(name, there)}")
    del holder[name]
