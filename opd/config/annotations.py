"""Reading type annotations: what they allow, in words, and what pydantic should check of them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
    Any: "anything",
}
_LIMITS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}


def alternatives(hint: Any) -> list[Any]:
    """The types that a value may have: `Annotated[A | None, ...]` gives A and None."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return alternatives(args[0])
    return [a for arg in args for a in alternatives(arg)] if origin in (Union, types.UnionType) else [hint]


def element(hint: Any) -> Any:
    """The annotation of what a list or mapping holds; Any where it says nothing."""
    for alternative in alternatives(hint):
        origin, args = typing.get_origin(alternative), typing.get_args(alternative)
        if isinstance(origin, type) and args and issubclass(origin, Mapping | Sequence):
            return args[1] if issubclass(origin, Mapping) else args[0]
    return Any


def may_be_blank(hint: Any, default: Any) -> bool:
    """Whether a text may be empty: where its default is, or a `Field(min_length=0)` says so."""
    metadata = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    found = [m for item in metadata for m in (item.metadata if isinstance(item, FieldInfo) else [item])]
    return default == "" or any(getattr(m, "min_length", None) == 0 for m in found)


def literals(hint: Any) -> list[str]:
    """The words that an annotation allows."""
    return [str(v) for a in alternatives(hint) if typing.get_origin(a) is Literal for v in typing.get_args(a)]


def describe(hint: Any) -> str:
    """What an annotation allows, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([describe(args[0]), ", ".join(_limits(args[1:]))]).strip()
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin is Literal:
        return " or ".join(map(str, args))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of names to {describe(args[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        size = "" if Ellipsis in args or len(args) == 1 else f" of {len(args)}"
        kinds = dict.fromkeys(describe(a) for a in args if a is not Ellipsis)
        return f"a list{size}, each of it {' or '.join(kinds)}"
    if isinstance(hint, type) and is_dataclass(hint):
        return f"a mapping of {', '.join(f.name for f in fields(hint))}"
    if getattr(hint, "_is_protocol", False):
        return f"a mapping whose _target_ is of the kind {hint.__name__}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def checkable(hint: Any) -> Any:
    """The same for pydantic: parts of a run, built by now, by their class and methods; no bool as a number."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is int:
        return Annotated[int, BeforeValidator(_no_bool), AfterValidator(_exact)]
    if hint is float:
        return Annotated[float, BeforeValidator(_no_bool)]
    if isinstance(hint, type) and origin is None and (is_dataclass(hint) or getattr(hint, "_is_protocol", False)):
        return Annotated[Any, BeforeValidator(partial(_instance, hint))]
    if origin is None or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(checkable(args[0]), *args[1:])]
    inner = tuple(a if a is Ellipsis else checkable(a) for a in args)
    return Union[inner] if origin in (types.UnionType, Union) else origin[inner]  # noqa: UP007  (built at run time)


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _limits(item.metadata)
        yield from (f"{word} {getattr(item, name)}" for name, word in _LIMITS.items() if hasattr(item, name))


def _instance(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    names = [n for n in vars(kind) if not n.startswith("_")] if is_dataclass(value) and not is_dataclass(kind) else []
    lacks = [n for n in names if inspect.getattr_static(value, n, None) is None]
    for name in names if not lacks else []:
        getattr(value, name)  # a property that raises AttributeError is, until Python 3.12, taken for none
    raise PydanticCustomError("part", "{lacks}", {"lacks": ", ".join(lacks)})


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a number, not true or false")
    return value


def _exact(value: int) -> int:
    if abs(value) >= 2**63:
        raise PydanticCustomError("size", "more than 64 bits")
    return value
