"""Plain settings to frozen dataclasses and back, with an error for every mistake that names its key.

A mapping with `_target_` becomes the dataclass that it names; every other mapping becomes the dataclass that its field
is annotated with. A key that the dataclass does not have is an error, however it was set.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import ModuleType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from opd.config import catalog
from opd.config.annotations import alternatives, checkable, describe, element, literals, may_be_blank
from opd.config.blame import place, told
from opd.config.trust import OURS, others, script
from opd.config.words import here
from opd.hints import among, nearest, shown
from opd.types import UserError

FEW = 3
"""So many options of a group are named where they have a setting that another one lacks; what more have says little."""
_LENIENT = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True, arbitrary_types_allowed=True)


def build(cls: type, node: Mapping[str, Any], path: str = "") -> Any:
    """Make `cls` from plain settings; every mistake is a UserError that names its key under `path`."""
    if "_target_" in node and path:  # what the whole is, is not a setting
        cls = target(node["_target_"], path)
        node = {k: v for k, v in node.items() if k != "_target_"}
    known = {f.name: f for f in fields(cls) if f.init}
    _refuse_unknown(cls, node, known, path)
    for name, f in known.items():
        if name not in node and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{join(path, name)}: must be given, it has no default")
    hints = _hints(cls, path)
    parts = sorted(node.items(), key=lambda item: _heavy(item[1]))  # a mistake in another is told without torch
    values = {k: _check(hints[k], _build_value(v, hints[k], join(path, k)), join(path, k)) for k, v in parts}
    for name, value in values.items():
        _refuse_blank(hints[name], value, known[name].default, join(path, name))
    try:
        return cls(**values)
    except (ValueError, UserError) as e:
        raise UserError(_under(path, str(e), known)) from e
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # a class of the user's may check its settings in any way
        ours = _ours(cls.__module__)
        theirs = others(node) | (set() if ours else {cls.__module__})
        if ours and not place(e, theirs):
            raise
        raise UserError(f"{path or 'config'}: {cls.__name__} cannot be made: {told(e, theirs)}") from e


def _heavy(value: Any) -> bool:
    """Whether the class that a part is of brings torch, or may bring anything."""
    target = value.get("_target_") if isinstance(value, Mapping) else None
    name = str(target) if target is not None else "opd."
    return name.startswith("opd.objectives.") or not name.startswith("opd.")


def _hints(cls: type, path: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as e:  # annotations are evaluated, and somebody else's may say anything
        raise UserError(f"{path}: the fields of {cls.__name__} cannot be read: {told(e, {cls.__module__})}") from e


def plain(value: Any, hint: Any = Any) -> Any:
    """The settings that `build` makes `value` from, all of them: mappings, lists and scalars only."""
    if is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value), include_extras=True)
        out = {f.name: plain(getattr(value, f.name), hints[f.name]) for f in fields(value) if f.init}
        named = type(value) in alternatives(hint)
        return out if named else {"_target_": f"{_module(type(value))}.{type(value).__qualname__}"} | out
    if isinstance(value, Mapping):
        return {k: plain(v, element(hint)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, element(hint)) for v in value]
    return value


def _module(cls: type) -> str:
    """The module that a class is imported from: of one in the script that runs, the name of its file."""
    return script() if cls.__module__ == "__main__" else cls.__module__


def target(name: Any, path: str) -> type:
    """The dataclass that `_target_` names; a module may also lie in the working directory."""
    at = f"{join(path, '_target_')}={shown(name)}"
    module, _, attribute = str(name).rpartition(".")
    if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))) or not module:
        raise UserError(f"{at}: allowed is the dotted path of a dataclass, such as opd.teachers.local.LocalTeacher")
    if not _ours(module) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script, unlike `python -m`, does not look there
    try:
        main = sys.modules["__main__"]  # a class of the script that runs is there already, not to be run again
        found = main if module == script() else importlib.import_module(module)
        cls = getattr(found, attribute, None)
    except ModuleNotFoundError as e:
        if e.name and (module == e.name or module.startswith(f"{e.name}.")):
            raise UserError(f"{at}: no such module{nearest(module, _siblings(module))}") from e
        if _ours(module) and _ours(e.name or ""):  # no setting mends it
            raise
        line = f" ({there})" if (there := place(e, {module})) else ""
        raise UserError(f"{at}: its module needs {e.name}, which is not installed{line}") from e
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # a module of the user's may fail in any way while it is imported, or leave
        if _ours(module):
            raise
        raise UserError(f"{at}: its module cannot be imported: {told(e, {module})}") from e
    if isinstance(cls, type) and is_dataclass(cls):
        return cls
    if hidden := _hidden(found):
        raise UserError(f"{at}: {hidden}")
    own = {module, found.__name__}
    classes = [k for k, v in vars(found).items() if is_dataclass(v) and getattr(v, "__module__", "") in own]
    raise UserError(f"{at}: no such dataclass{among(attribute, classes)}")


def _ours(module: str) -> bool:
    """Whether a module ships with opd."""
    return module.split(".")[0] in OURS


def _hidden(found: ModuleType) -> str:
    """That another module of its name is in the working directory, where there is one; Python finds the first alone."""
    mine = os.path.join(os.getcwd(), f"{found.__name__}.py")
    if not os.path.isfile(mine) or os.path.realpath(mine) == os.path.realpath(found.__file__ or ""):
        return ""
    return f"{found.__name__} is {found.__file__ or 'built into Python'}, which hides {mine}; give yours another name"


def join(path: str, key: Any) -> str:
    """Dotted path of a key."""
    return f"{path}.{key}" if path else str(key)


def _build_value(value: Any, hint: Any, path: str) -> Any:
    """Build the dataclasses inside a value, however deep; leave the rest as it is."""
    if isinstance(value, Mapping):
        cls = next((a for a in alternatives(hint) if isinstance(a, type) and is_dataclass(a)), None)
        if "_target_" in value or cls:
            return build(cls or object, value, path)
        _refuse_stray(value, path)
        return {k: _build_value(v, element(hint), join(path, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_build_value(v, element(hint), f"{path}[{i}]") for i, v in enumerate(value)]
    return value


def _check(hint: Any, value: Any, path: str) -> Any:
    """Check one value against its annotation, converting what YAML cannot say (tuples, numbers in quotes)."""
    try:
        return TypeAdapter(checkable(hint), config=_LENIENT).validate_python(value)
    except ValidationError as e:
        error = e.errors()[0]
        own = error["type"] == "value_error"  # the words of a validator that the component brings along
        allowed = error["msg"].removeprefix("Value error, ") if own else f"allowed is {describe(hint)}"
        lacks = f"; it has no {error['msg']}" if error["type"] == "part" and error["msg"] else ""
        raise UserError(f"{path}={shown(value)}: {allowed}{nearest(value, literals(hint))}{lacks}") from e
    except Exception as e:  # a part that is looked at may be somebody's, whose properties do anything
        module = type(value).__module__
        if _ours(module) or not place(e, {module}):
            raise
        raise UserError(f"{path}: {told(e, {module})}") from e


def _refuse_blank(hint: Any, value: Any, default: Any, path: str) -> None:
    """An empty text, as an unset variable of a shell leaves it (`student.model=$MODEL`), is taken for no name."""
    if isinstance(value, str) and not value.strip() and not may_be_blank(hint, default):
        null = " or null" if type(None) in alternatives(hint) else ""
        raise UserError(f"{path}={shown(value)}: allowed is a text that is not empty{null}")


def _refuse_unknown(cls: type, node: Mapping[str, Any], known: Mapping[str, Any], path: str) -> None:
    for key, value in node.items():
        if key in known:
            continue
        near = nearest(key, known)
        deeper = [] if path else [f"{name}.{key}" for name in _holders(cls, node, str(key))]
        options = catalog.having(path.rpartition(".")[2], str(key))
        if 0 < len(options) <= FEW:  # `devices.ranks=2` of devices=one
            near = f", {path}={' or '.join(options)} has it;"
        elif word := here(str(key)):  # before a setting of that name elsewhere: `batch_size` is rollout=hf's, too
            near = f", here it is {word};"
        elif deeper:  # `lr=1e-5`: right name, wrong place
            near = f", did you mean {' or '.join(deeper)}?"
        at = join(path, key)
        while isinstance(value, Mapping) and len(value) == 1:  # as it was typed: `optmi.lr=1e-5`
            ((inner, value),) = value.items()
            at = join(at, inner)
        raise UserError(
            f"{at}={shown(value)}: no such setting{near or ';'} allowed here: {', '.join(known) or 'nothing'}"
        )


def _refuse_stray(value: Mapping[str, Any], path: str) -> None:
    """A misspelt key among parts (`data.tasks.arithmetc.operators=+`) makes a new mapping, which has no `_target_`."""
    parts = [str(k) for k, v in value.items() if isinstance(v, Mapping) and "_target_" in v]
    for key, item in value.items():
        if parts and isinstance(item, Mapping) and "_target_" not in item:
            given = f"={shown(item)}"
            raise UserError(
                f"{join(path, key)}{given}: it has no _target_{among(key, parts)}; a new one needs a _target_"
            )


def _holders(cls: type, node: Mapping[str, Any], key: str) -> list[str]:
    """Which of the top-level mappings have a setting `key`."""
    hints = typing.get_type_hints(cls)
    classes = {name: next((a for a in alternatives(h) if is_dataclass(a)), None) for name, h in hints.items()}
    typed = {name: [f.name for f in fields(c)] for name, c in classes.items() if c is not None}
    return [n for n in hints if key in typed.get(n, []) or (isinstance(node.get(n), Mapping) and key in node[n])]


def _under(path: str, message: str, known: Mapping[str, Field]) -> str:
    """Put `path` before a message of a dataclass's own check, where the message does not say it already."""
    if not path or re.match(rf"{re.escape(path)}(?!\w)", message):
        return message
    first = re.match(r"(\w+)(?=[=:.\[])", message)
    return join(path, message) if first and first[1] in known else f"{path}: {message}"


def _siblings(module: str) -> list[str]:
    """Modules that lie where `module` was looked for; of the first of a path, those of the working directory."""
    parent = module.rpartition(".")[0]
    if not parent:
        return [m.name for m in pkgutil.iter_modules([os.getcwd()])]
    try:
        package = importlib.import_module(parent)
    except KeyboardInterrupt:
        raise
    except BaseException:  # it may be somebody's, and fail in any way or leave; this is but advice
        return []
    return [f"{parent}.{m.name}" for m in pkgutil.iter_modules(getattr(package, "__path__", []))]
