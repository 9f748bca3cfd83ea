"""Compose a config with Hydra and build it; beside `files`, `mistakes` and `overrides` none imports either.

Hydra does the choice of files (defaults lists, groups, the search path) and parses overrides; the values are set here,
on the composed tree, so that a key that the YAML leaves to its default can be given like any other. The schema judges
everything afterwards: no spelling of an override gets around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError

from opd.config import catalog
from opd.config.bounds import check_references
from opd.config.files import named_in, option_alone, picked_of, put_together, read, remarks, starting_from
from opd.config.mistakes import one_line, within
from opd.config.overrides import is_choice, parse, put
from opd.config.own import Own, own, texts_in
from opd.config.part import GIVEN, GLOBAL, MODELS, escaped, put_part
from opd.config.trust import check_trusted, check_values
from opd.devices.one import One
from opd.hints import among, nearest, shown
from opd.protocols import Devices, Judging
from opd.sources.parts import parts_of
from opd.types import UserError
from opd.writing import Repeating

if TYPE_CHECKING:
    from opd.config.settings import Config

PROTOCOLS = ("eval",)
"""Groups whose files go before what a config says of that part: what was published holds as a whole."""


class NotGiven(UserError):
    """A setting that only the user knows was not given."""


@dataclass(frozen=True)
class Composed:
    """A checked config, with what it was made from."""

    config: Config
    settings: Mapping[str, Any]
    """Every setting, those left to their defaults too, in mappings, lists and scalars; `build` takes it back."""
    overrides: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What was made of what was typed, for people."""

    @property
    def yaml(self) -> str:
        """The settings as they go into the run directory, to be loaded again."""
        return OmegaConf.to_yaml(escaped(self.settings))

    def with_parts(self, **parts: Any) -> Composed:
        """The same with objects in place of whole parts, by the names of `Config`'s fields; checked as a whole.

        They are built anew from what will be written down of them, so that a run can be gone on with.
        """
        from opd.config.schema import plain
        from opd.config.settings import Config

        known = get_type_hints(Config, include_extras=True)
        for name in parts:
            if name not in known:
                raise UserError(f"{name}: no such part of a config{among(name, known)}")
        for text in self.overrides:
            if (name := re.split(r"[.=@]", text.lstrip("+~"))[0]) in parts:
                raise UserError(f"{text}: {name} is given as an object too; leave one out")
        given = {name: plain(value, known[name]) for name, value in parts.items()}
        for name, value in given.items():
            _refuse_unwritten(value, name)
        config, notes = built({**self.settings, **given})
        return replace(self, config=config, settings=plain(config, Config), notes=(*self.notes, *notes))

    def settled(self) -> Composed:
        """The same with what is left open decided: the fast dtype of each part, the number of threads, who thinks.

        An engine follows the student, so that their distributions are near, and a teacher thinks where that does.
        """
        from opd.devices.compute import everywhere, settled
        from opd.devices.threads import pick_threads

        student = settled(self.config.student)
        now = settled(replace(self.config, student=student, rollout=settled(self.config.rollout, student.dtype)))
        now = replace(now, threads=pick_threads(self.config.threads, self.config.devices.sharing))
        if now.stale and isinstance(now.objective, Judging):
            now = replace(now, objective=now.objective.judging_now())
        shown = {"template_kwargs": now.data.template_kwargs}
        return self._of(everywhere(now, lambda part: shown if part.get("template_kwargs", shown) is None else {}))

    def _of(self, config: Config) -> Composed:
        from opd.config.schema import plain

        return replace(self, config=config, settings=plain(config, type(config)))


def built(settings: Mapping[str, Any]) -> tuple[Config, tuple[str, ...]]:
    """The config of settings, of which all is checked, and what was made of them, for people."""
    from opd.config.schema import build
    from opd.config.settings import Config

    made: Config = build(Config, settings)
    n, source = made.sampling.n, made.source
    remarks = tuple(said for part in parts_of(source) if (said := getattr(part, "remark", "")))
    if n == 1 or not (isinstance(source, Repeating) and source.repeats):
        return made, remarks
    note = f"sampling.n={n} is 1 here: the data gives one completion of each prompt, and {n} times the same would be "
    alone = {**settings, "sampling": {**settings["sampling"], "n": 1}}
    return build(Config, alone), (*remarks, f"{note}{n} times the work for the same gradient")


def _refuse_unwritten(value: Any, path: str) -> None:
    """UserError for what cannot be written into a run's config.yaml, or not be found again by what is written."""
    if isinstance(value, Mapping):
        if "<locals>" in str(value.get("_target_", "")):
            raise UserError(
                f"{path}={value['_target_']}: a class inside of a function cannot be found again when the run goes on; "
                "define it at the top of a file"
            )
        for key, inner in value.items():
            _refuse_unwritten(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _refuse_unwritten(inner, f"{path}[{i}]")
    elif not isinstance(value, str | int | float | bool | None):
        raise UserError(
            f"{path}={shown(value)}: it cannot be written into the run's config.yaml; allowed are numbers, texts, "
            "lists, mappings, and frozen dataclasses of these"
        )


@dataclass(frozen=True)
class Draft:
    """A config as it was put together; most of its mistakes are not looked for yet, for which torch is needed."""

    path: Path
    settings: Mapping[str, Any]
    overrides: tuple[str, ...]
    own: Own = field(default_factory=Own)
    """The parts that were named by files and classes."""

    @property
    def devices(self) -> Devices:
        """Where it computes; UserError for whatever is wrong in the config, where that is not to be accepted."""
        from opd.config.schema import build

        try:
            made = build(One, self.settings.get("devices", {}), "devices")
        except UserError:
            made = None
        return made if isinstance(made, Devices) else self.checked().config.devices

    def checked(self) -> Composed:
        """The config; UserError for whatever is wrong in it."""
        from opd.config.schema import plain
        from opd.config.settings import Config

        try:
            config, notes = built(self.settings)
        except UserError as error:
            raise UserError(f"{error}{self._file_of(str(error))}") from error
        said = remarks(self.path, self.settings, self.overrides, self.own.overrides)
        notes = (*self.own.notes, *said, *notes)
        return Composed(config, plain(config, Config), self.overrides, notes)

    def _file_of(self, message: str) -> str:
        """Where a setting that is refused stands, if it is in a file of the user's and not in an override."""
        key = re.match(r"[\w.\[\]]*", message)
        file = next((f for at, f in self.own.places.items() if key and within(key[0], at)), None)
        given = [re.split(r"[=@]", text.lstrip("+~"))[0] for text in self.overrides]
        given = [one for one in given if one not in self.own.files]
        if key is None or any(within(key[0], one) for one in given):
            return ""
        if file is None and self.path.parent == catalog.PACKAGED:
            return ""
        return f" (in {file or self.path})"


def draft(name: str, overrides: Sequence[str] = (), published: bool = False) -> Draft:
    """Compose `conf=name` (or a path) with Hydra overrides; brings no torch along."""
    path = catalog.locate(name)
    return _draft(path, own([*texts_in(path, overrides), *overrides], path.parent), overrides, published)


def _draft(path: Path, named: Own, overrides: Sequence[str], published: bool) -> Draft:
    return Draft(path, compose(path, named.overrides, published, named), tuple(overrides), named)


def draft_of_run(
    path: Path, overrides: Sequence[str], parts: Sequence[str], published: bool = False, models: bool = True
) -> Draft:
    """The config of a run's folder, with overrides; its code is trusted where that is said.

    Args:
        path: the run's config.yaml.
        overrides: Hydra's.
        parts: modules and packages beyond those that ship whose classes it may name.
        published: as for `load`.
        models: whether models will be loaded by it.

    Raises:
        UserError: it names others, or asks for code of a model to be run; nothing has been imported.
    """
    located = catalog.locate(str(path))
    check_values(OmegaConf.to_container(read(located), resolve=False), overrides, str(path))
    made = _draft(located, own(overrides, path.parent), overrides, published)
    check_trusted(made.settings, overrides, parts, str(path), models, made.own.classes)
    return made


def load(name: str, overrides: Sequence[str] = (), published: bool = False) -> Composed:
    """Compose, check and build `conf=name` (or a path) with Hydra overrides; reads no weight, writes nothing.

    `published`: data that is chosen has its own tasks alone, and is evaluated as it was published where there is such a
    protocol and no `eval` is chosen.
    """
    return draft(name, overrides, published).checked()


def read_back(yaml: str, overrides: Sequence[str] = ()) -> Composed:
    """The config of `Composed.yaml`; `overrides` are in it already."""
    settings = _resolved(DictConfig(OmegaConf.create(yaml)))
    return Draft(Path(), {str(k): v for k, v in settings.items()}, tuple(overrides)).checked()


def compose(
    path: Path, overrides: Sequence[str] = (), published: bool = False, named: Own | None = None
) -> dict[str, Any]:
    """Resolved settings of a config file with overrides, not checked against the schema yet.

    `named`: parts that take the place of what the files say, or go over it.
    """
    named = named or Own()
    parsed = [parse(text) for text in overrides]
    choices = [o for o in parsed if is_choice(o, path.parent)]
    whole = bool({"data", "eval"} & picked_of(choices).keys())  # of the command line; a file's own settings stay
    given = [o.key_or_group for o in parsed]
    choices += [parse(f"{MODELS}={GIVEN}")] if named.models else []
    with one_line(path, given):
        if published and (name := catalog.protocol(named_in(read(path)) | picked_of(choices), path.parent)):
            choices.append(parse(f"eval={name}"))
    with one_line(path, given), starting_from(path, choices) as start:
        node = put_together(start.primary, start.picked, path.parent, named.models)
    if MODELS in node:
        raise UserError(f"{MODELS}: a file of them that lies beside a config begins with the line  {GLOBAL}")
    with one_line(path, given), open_dict(node):
        for at, part in [*start.parts.items(), *named.parts.items()]:
            put_part(node, at, part)
        for o in (o for o in choices if whole and o.key_or_group in PROTOCOLS):
            OmegaConf.update(node, o.key_or_group, read(catalog.option(o.key_or_group, str(o.value()), path.parent)))
        if published and (data := picked_of(choices).get("data")):  # and none of what was trained on
            own = option_alone("data", data, path.parent)
            for key in ("tasks", "weights", "evaluated"):
                node.data.pop(key, None)
                if key in own:
                    node.data[key] = own[key]
        if named.data is not None:
            for key in ("tasks", "weights", "evaluated"):
                node.data.pop(key, None)
            put_part(node, "data", named.data)
        for o in (o for o in parsed if o not in choices):
            put(node, o)
        settings = _resolved(node)
    return {str(k): v for k, v in settings.items()}


def _resolved(node: DictConfig) -> dict[Any, Any]:
    """Plain values, with every `${...}` replaced and no `???` left."""
    try:
        check_references(OmegaConf.to_container(node, resolve=False))
        missing = sorted(OmegaConf.missing_keys(node))
        if missing:
            also = "".join(f"; {key} too" for key in missing[1:])
            raise NotGiven(f"{missing[0]}: must be given, it has no default{also}")
        settings = OmegaConf.to_container(node, resolve=True)
    except InterpolationKeyError as e:
        there = dict(_leaves(OmegaConf.to_container(node, resolve=False)))
        wanted = re.search(r"'(.*)' not found", str(e))
        near = nearest(wanted[1], there) if wanted else ""
        raise UserError(f"{e.full_key}={there.get(str(e.full_key))}: no such key{near}") from e
    except RecursionError as e:
        raise UserError("a setting refers to others, and these to others, without end; write out what is meant") from e
    assert isinstance(settings, dict)
    return settings


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        at = f"{path}[{key}]" if isinstance(node, list) else f"{path}.{key}" if path else str(key)
        yield at, value
        yield from _leaves(value, at)
