"""Files of configs: read one, and have Hydra put those together that a run or a group's option names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf

from opd.config import catalog
from opd.config.bounds import MAPPING, check_file, check_files
from opd.config.overrides import is_choice, parse
from opd.config.part import BY_FILE, GIVEN, GLOBAL, MODELS, lift
from opd.hints import shown
from opd.types import UserError

LAST = ("data", "eval", MODELS)
"""Groups whose options go before what a config's file says."""
MADE = "opd.models.tiny.Tiny"
"""Students that a config makes itself, of under a million weights, with a rate and lengths for such."""


def picked_of(choices: Sequence[Override]) -> dict[str, str]:
    """Which option each group is given, in its own place: `teacher@reference=quickstart` picks no teacher."""
    return {o.key_or_group: str(o.value()) for o in choices if place_of(o) == o.key_or_group}


def place_of(choice: Override) -> str:
    """The setting that an option is put into."""
    package = choice.package
    return package if package and not package.startswith("_") else str(choice.key_or_group)


def named_in(node: DictConfig) -> dict[str, str]:
    """What a file's own list of defaults picks, by group."""
    entries = (e for e in node.get("defaults") or () if isinstance(e, DictConfig))
    return {str(key).split()[-1]: value for e in entries for key, value in e.items()}


def remarks(
    path: Path, settings: Mapping[str, Any], overrides: Sequence[str], of_options: Sequence[str]
) -> tuple[str, ...]:
    """What there is to say of a config's file, and of what is typed beside it: `of_options`, without own parts."""
    return (*passed_over(path), *outvoted(path, of_options), *borrowed(path, settings, overrides))


def borrowed(path: Path, settings: Mapping[str, Any], overrides: Sequence[str]) -> tuple[str, ...]:
    """What is said where a model of one's own is trained as those that ship are, of under a million weights."""
    given = {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in overrides)}
    if path.parent != catalog.PACKAGED or "student.model" not in given:
        return ()
    models = (named_in(read(path)) | given).get("models")
    shipped = put_together(path, [f"models={models}"] if models else [], beside=path.parent)
    if OmegaConf.select(shipped, "student.model._target_") != MADE:
        return ()
    left = [key for key in ("optim.lr", "sampling.max_tokens") if key not in given]
    said = [f"{key}={settings.get(at, {}).get(name)}" for key in left for at, name in [key.split(".")]]
    return (
        (f"{', '.join(said)}: as for models={models}, not for models of yours: models=own has those",) if said else ()
    )


@dataclass(frozen=True)
class Start:
    """What Hydra begins with."""

    primary: Path
    """The config's file, or a copy without what is replaced or comes later."""
    picked: Sequence[str]
    """Overrides for Hydra."""
    parts: Mapping[str, DictConfig]
    """Parts that the file names by a class: they are put in when all else is there (`opd.config.part`)."""


@contextmanager
def starting_from(path: Path, choices: Sequence[Override]) -> Iterator[Start]:
    """Have a config's file ready for Hydra.

    A choice of another class replaces what the file says of that part, whose settings would not fit; otherwise plain
    settings are changed where the chosen file sets them. A run's own config.yaml has no defaults list: everything in
    it is resolved, and the choices go into a new one. A part that is named by a text is not in it (`opd.config.own`).
    """
    node, lines = read(path), [str(o.input_line) for o in choices]
    last = {place_of(o): o for o in choices}
    replaced = [at for at, o in last.items() if _says(node, at) and _differs(path, o)]
    replaced += [str(k) for k, v in node.items_ex(resolve=False) if k in BY_FILE and isinstance(v, str) and v != "???"]
    kept = deepcopy(node)
    for at in replaced:
        _leave_out(kept, at)
    parts: Mapping[str, DictConfig] = {}
    if "defaults" in node:
        kept, parts = lift(kept)
    if not replaced and not parts and ("defaults" in node or not choices):
        yield Start(path, lines, {})
        return
    if "defaults" not in node and choices:
        entries = {o.get_key_element().lstrip("+"): str(o.value()) for o in choices}
        kept["defaults"], lines = ["_self_", *({group: file} for group, file in entries.items())], []
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "config.yaml"
        OmegaConf.save(kept, copy)
        yield Start(copy, lines, parts)


def _says(node: Any, at: str) -> bool:
    """Whether a file has settings of its own in a place."""
    for name in at.split("."):
        node = node.get(name) if isinstance(node, DictConfig) else None
    return isinstance(node, DictConfig)


def _leave_out(node: DictConfig, at: str) -> None:
    parent, _, name = at.rpartition(".")
    if _says(node, at):
        (OmegaConf.select(node, parent) if parent else node).pop(name)
    else:
        node.pop(at, None)


def _differs(path: Path, choice: Override) -> bool:
    """Whether an option is of another class than what `path` has in its place."""
    now = OmegaConf.select(put_together(path, [], beside=path.parent), place_of(choice))
    chosen = option_alone(choice.key_or_group, str(choice.value()), path.parent)
    return isinstance(now, DictConfig) and "_target_" in now and bool(now["_target_"] != chosen.get("_target_"))


def option_alone(group: str, option: str, beside: Path) -> DictConfig:
    """An option of a group with what its own defaults bring, and nothing of any run."""
    with TemporaryDirectory() as folder:
        primary = Path(folder) / "config.yaml"
        OmegaConf.save(OmegaConf.create({"defaults": [{group: option}, "_self_"]}), primary)
        node = put_together(primary, [], beside)[group]
    assert isinstance(node, DictConfig)
    return node


def put_together(primary: Path, picked: Sequence[str], beside: Path, models: Path | None = None) -> DictConfig:
    """What Hydra puts together; groups are looked for beside the user's config first, then among those that ship.

    `models` is the file that the option GIVEN of that group stands for.
    """
    check_files(primary, picked, beside)
    with in_hydra(primary, beside, models) as search, readable(primary):
        return hydra.compose(primary.stem, [search, *picked])


@contextmanager
def in_hydra(primary: Path, beside: Path, models: Path | None = None) -> Iterator[str]:
    """Hydra at work in the folder of a file; gives the override that names the other folders to look into."""
    folders = [f"file://{folder}" for folder in dict.fromkeys((beside, catalog.PACKAGED))]
    search = ",".join("'" + f.replace("\\", "\\\\").replace("'", "\\'") + "'" for f in folders)
    with _looked_into(primary, beside, models) as first, hydra.initialize_config_dir(str(first), version_base="1.3"):
        yield f"hydra.searchpath=[{search}]"


@contextmanager
def _looked_into(primary: Path, beside: Path, models: Path | None) -> Iterator[Path]:
    """The folder that Hydra looks into first: `base` is the one that ships, whatever has that name beside a config."""
    hidden = any((folder / catalog.BASE).exists() for folder in {primary.parent, beside} - {catalog.PACKAGED})
    if models is None and (primary.name == catalog.BASE or not hidden):
        yield primary.parent
        return
    with TemporaryDirectory() as folder:
        for file in (catalog.PACKAGED / catalog.BASE, primary):
            shutil.copy(file, folder)
        if models is not None:
            text, place = models.read_text(encoding="utf-8"), Path(folder) / MODELS / f"{GIVEN}.yaml"
            place.parent.mkdir()
            place.write_text(text if "@package" in text else f"{GLOBAL}\n{text}", encoding="utf-8")
        yield Path(folder)


def passed_over(path: Path) -> tuple[str, ...]:
    """What is said where a config starts from `base` and has a file of that name beside it, which is not taken."""
    own = path.parent / catalog.BASE
    if (
        not path.name
        or path.parent == catalog.PACKAGED
        or not own.is_file()
        or "base" not in (read(path).get("defaults") or ())
    ):
        return ()
    return (f"defaults: base is the one that ships; to start from {own}, give it another name",)


def outvoted(path: Path, overrides: Sequence[str]) -> Iterator[str]:
    """What is said of options that are typed where the config's file has settings of its own, which come last."""
    if not path.name:
        return
    node, choices = read(path), [o for text in overrides if is_choice(o := parse(text), path.parent)]
    typed = {text.partition("=")[0].lstrip("+") for text in overrides}
    for at, o in {place_of(o): o for o in choices if o.key_or_group not in LAST}.items():
        if _says(node, at) and not _differs(path, o):
            chosen = option_alone(o.key_or_group, str(o.value()), path.parent)
            own = OmegaConf.to_container(OmegaConf.select(node, at), resolve=False)
            other = OmegaConf.to_container(chosen, resolve=False)
            assert isinstance(own, dict)
            assert isinstance(other, dict)
            kept = {f"{at}.{k!s}": v for k, v in own.items() if other.get(k, "???") not in ("???", v)}
            if stay := [f"{k}={shown(v)}" for k, v in kept.items() if k not in typed]:
                yield f"{at}={o.value()}: {', '.join(stay)} stay as {path.name} has them; type others to change them"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What YAML's constructors raise for a value that is none of its kind (`!!bool x`), as a UserError."""
    try:
        yield
    except (LookupError, AttributeError, TypeError, ArithmeticError) as e:
        raise UserError(f"conf={path}: a value in it cannot be read, {type(e).__name__}: {e}") from e


def read(path: Path) -> DictConfig:
    """A file itself; UserError where it is not what a config must be."""
    node = mapping(path)
    defaults = node.get("defaults")
    if defaults is not None and not (isinstance(defaults, ListConfig) and "_self_" in defaults):
        raise UserError(
            f"conf={path}: defaults: allowed is a list that ends in _self_, which stands for this file's own"
        )
    return node


def mapping(path: Path) -> DictConfig:
    """A file of settings, a whole config's or a part's; UserError where it is something else."""
    check_file(path)
    try:
        with readable(path):
            node = OmegaConf.load(path)
    except UnicodeDecodeError as error:
        raise UserError(f"conf={path}: it is no text in UTF-8: {error}") from error
    except OSError as error:
        if "Invalid loaded object" not in str(error):
            raise
        node = None
    if isinstance(node, DictConfig) and not node:
        raise UserError(f"conf={path}: it is empty, allowed is {MAPPING}")
    if not isinstance(node, DictConfig):
        raise UserError(f"conf={path}: it holds a list, allowed is {MAPPING}")
    if "hydra" in node:
        raise UserError(f"conf={path}: hydra: no such setting; Hydra's own settings have no effect here")
    return node
