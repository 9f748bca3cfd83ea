"""docs/config.md: every setting there is, from the dataclasses that are the schema and the configs that ship."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType

from opd.config.annotations import alternatives, describe, element
from opd.config.catalog import PACKAGED, described
from opd.config.explain import default, docs
from opd.config.schema import target
from opd.config.settings import Config
from tests.pages import DOCS

PAGE = DOCS / "config.md"
KINDS = {
    "student.model": ("models", "Models that are made, in the place of a path; a teacher's `model` takes them, too."),
    "teacher": ("teachers", "More on each: [teachers](teachers.md)."),
    "rollout": ("rollout", "The student's engine."),
    "objective": ("objectives", "What is learned, with formulas: [methods](methods.md#objectives-what-is-learned)."),
    "source": ("sources", "Who writes: [methods](methods.md#sources-who-writes)."),
    "data.tasks.NAME": ("tasks", "Prompts and their verifiers: [data](data.md)."),
    "devices": ("devices", "Where a run computes: [devices](devices.md)."),
    "log.trackers": ("trackers", "A list: [trackers](runs.md#trackers)."),
}  # fmt: skip
"""Where a part of several kinds stands in a config -> the package of its classes, and what to say of it."""
GROUPS = {"teacher", "rollout", "objective", "source", "devices"}
"""Of them, those that a group of the same name chooses."""


@dataclass(frozen=True)
class Part:
    """A class with settings, and where they stand."""

    key: str
    cls: type


def made() -> str:
    """All chapters."""
    parts = ["\n## The run\n", *table(Part("", Config))]
    for part in parts_of(Config, ""):
        parts += [f"\n## `{part.key}`\n", f"{sentence(part.cls)}\n", *table(part)]
    for key, (package, about) in KINDS.items():
        parts += [f"\n## `{key}`\n", about]
        if key in GROUPS:
            parts += ["", "| | |", "| --- | --- |"]
            parts += [f"| `{key}={name}` | {cell(text)} |" for name, text in described(key).items()]
        for cls in shipped()[package]:
            inner = [Part(key, cls), *parts_of(cls, key)]
            if any(settings(part) for part in inner):
                parts += [f"\n### {cls.__name__}\n", f"{sentence(cls)}\n"]
                parts += [line for part in inner for line in table(part)]
    return "\n".join(parts) + "\n\n"


def shipped() -> Mapping[str, list[type]]:
    """Classes that the configs name, by package."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(PACKAGED.rglob("*.yaml"))]
    named = sorted({name for text in texts for name in re.findall(r"_target_: (opd\.[\w.]+)", text)})
    found: dict[str, list[type]] = {}
    for name in named:
        package = "devices" if name.startswith("opd.rollout.apart.") else name.split(".")[1]
        found.setdefault(package, []).append(target(name, "made"))
    return found


def parts_of(cls: type, key: str) -> Iterator[Part]:
    """The parts with settings of their own that a class always has, however deep."""
    for name, hint in hints(cls).items():
        named = f"{key}.{name}".lstrip(".")
        kinds = dict.fromkeys(alternatives(hint), named) | dict.fromkeys(alternatives(element(hint)), f"{named}.NAME")
        for kind, place in kinds.items():
            if isinstance(kind, type) and is_dataclass(kind):
                yield Part(place, kind)
                yield from parts_of(kind, place)


def settings(part: Part) -> list[str]:
    """Names of a part's own settings, without those that have a chapter of their own."""
    known = hints(part.cls)
    elsewhere = {inner.key for inner in parts_of(part.cls, part.key)} | GROUPS
    places = {name: f"{part.key}.{name}".lstrip(".") for name in known}
    return [name for name, at in places.items() if at not in elsewhere or NoneType in alternatives(known[name])]


def table(part: Part) -> Iterator[str]:
    """A line a setting; none where there are none."""
    meanings, known = docs(part.cls), hints(part.cls)
    if names := settings(part):
        yield from ("| setting | default | allowed | |", "| --- | --- | --- | --- |")
    for name in names:
        key, value = f"{part.key}.{name}".lstrip("."), default(part.cls, name)
        meaning = re.sub(r"\bNone\b", "null", meanings[name])
        yield f"| `{key}` | {f'`{value}`' if value else ''} | {cell(describe(known[name]))} | {cell(meaning)} |"


def hints(cls: type) -> dict[str, typing.Any]:
    """Annotations of the settings of a class."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {f.name: found[f.name] for f in fields(cls) if f.init}


def sentence(cls: type) -> str:
    """What a class says of itself first."""
    text = (inspect.getdoc(cls) or "").split("\n\n")[0]
    return " ".join(text.split())


def cell(text: str) -> str:
    """A text in a table."""
    return " ".join(text.split()).replace("|", "\\|")
