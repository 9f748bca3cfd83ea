"""Compose a config with Hydra, check it against the dataclasses, build the parts. The only importer of Hydra and OmegaConf.

A mapping with `_target_` becomes the frozen dataclass that it names; every other mapping becomes the dataclass that its
field is annotated with. A key that the dataclass does not have is an error, however it was set.
"""

from __future__ import annotations

import difflib
import importlib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, InstanceOf, TypeAdapter, ValidationError

import opd
from opd.data.prompts import Data
from opd.optim import Optim
from opd.student import StudentConfig
from opd.trackers import TrackerConfig
from opd.types import Engine, Objective, Teacher, UserError

PACKAGED = next(
    (d for d in (Path(opd.__file__).parent / "conf", Path(opd.__file__).parents[1] / "conf") if d.is_dir()),
    Path(opd.__file__).parent / "conf",
)
"""The configs that ship: inside the wheel, or at the top of a checkout."""

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class SamplingConfig:
    """How the student writes during training."""

    max_tokens: Count
    n: Count = 4
    """Samples per prompt."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        """Refuse truncated distributions: the learner's log-probs are those of the full one."""
        given = {"top_p": (self.top_p, 1.0), "top_k": (self.top_k, 0), "min_p": (self.min_p, 0.0)}
        for name, (value, full) in given.items():
            if value != full:
                raise ValueError(
                    f"sampling.{name}={value} cuts tokens off, so that samples are not the learner's policy and the "
                    f"policy gradient is biased; only {name}={full} is allowed in training (eval.{name} is free)"
                )


@dataclass(frozen=True)
class EvalConfig:
    """How a model is measured, in training and by `opd eval`."""

    every: Annotated[int, Field(ge=0)] = 50
    """Steps between evaluations in training; 0: only before the first step and after the last."""
    size: Count = 200
    """Held-out prompts."""
    n: Count = 1
    """Samples per prompt."""
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_tokens: Count | None = None
    """None: that of training."""
    k: tuple[Count, ...] = (1,)
    """pass@k is reported for these k, each at most `n`."""

    def __post_init__(self) -> None:
        """Check that pass@k can be estimated."""
        if max(self.k) > self.n:
            raise ValueError(f"eval.k={max(self.k)} needs at least as many samples; eval.n={self.n}")


@dataclass(frozen=True)
class CheckpointConfig:
    """What a run keeps."""

    every: Count = 50
    """Steps between checkpoints; there is one after the last step in any case."""
    keep: Count = 2
    """How many of the newest stay."""


@dataclass(frozen=True)
class LogConfig:
    """What a run writes down beside its metrics."""

    trackers: tuple[TrackerConfig, ...] = ()
    rollouts_every: Annotated[int, Field(ge=0)] = 10
    """Steps between files of rollouts; 0: none."""
    exact_kl: bool = True
    """Also measure the exact reverse KL and the teacher's entropy, where the teacher gives its distribution."""


@dataclass(frozen=True)
class PreflightConfig:
    """Checks before the first step."""

    prompts: Count = 8
    max_gap: Annotated[float, Field(gt=0)] | None = None
    """Largest mean |log-prob of the engine - of the learner| in nats; None: 0.01 in float32, 0.15 otherwise."""
    max_kl: Annotated[float, Field(gt=0)] = 20.0
    """A reverse KL per token above this means that the two do not speak the same language or template."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    name: str
    steps: Count
    student: StudentConfig
    teacher: Teacher
    rollout: Engine
    objective: Objective
    data: Data
    sampling: SamplingConfig
    optim: Optim = field(default_factory=Optim)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)
    seed: Annotated[int, Field(ge=0)] = 0
    runs: str = "runs"
    """Folder that run directories are made in."""

    def __post_init__(self) -> None:
        """Check what no single part can."""
        missing = self.objective.needs - {"rewards"} - self.teacher.provides
        if missing:
            raise ValueError(
                f"objective needs {', '.join(sorted(missing))} of the teacher, which {type(self.teacher).__name__} does "
                f"not provide (it provides {', '.join(sorted(self.teacher.provides))})"
            )
        if self.data.prompts_per_step * self.sampling.n < self.optim.steps_per_batch:
            raise ValueError(
                f"optim.steps_per_batch={self.optim.steps_per_batch} is more than the rollouts of a step "
                f"(data.prompts_per_step * sampling.n = {self.data.prompts_per_step * self.sampling.n})"
            )


@dataclass(frozen=True)
class Composed:
    """A checked config, with what it was made from."""

    config: Config
    yaml: str
    """Every setting, resolved, as it goes into the run directory."""
    overrides: tuple[str, ...]


def shipped() -> dict[str, str]:
    """Names of the configs that ship, each with the comment in its first line."""
    paths = sorted(p for p in PACKAGED.glob("*.yaml") if p.stem != "base")
    return {p.stem: p.read_text().splitlines()[0].lstrip("# ") for p in paths}


def groups() -> list[str]:
    """Config groups: the folders of `conf/`."""
    return sorted(d.name for d in PACKAGED.iterdir() if d.is_dir())


def locate(name: str) -> Path:
    """The file of `conf=name`: a shipped name, or a path. Raises UserError with the nearest match."""
    if (PACKAGED / f"{name}.yaml").is_file():
        return PACKAGED / f"{name}.yaml"
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path.resolve()
    known = list(shipped())
    raise UserError(f"conf={name}: no such config or file{_nearest(name, known)}; there are {', '.join(known)}")


def load(name: str, overrides: Sequence[str] = ()) -> Composed:
    """Compose, check and build `conf=name` (or a path) with Hydra overrides; reads no weight, writes nothing."""
    plain, text = compose(locate(name), overrides)
    config = build(Config, plain, "")
    return Composed(config, text, tuple(overrides))


def compose(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Resolved settings of a config file with overrides: as plain values, and as YAML."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    search = [] if path.parent == PACKAGED else [f"hydra.searchpath=[file://{PACKAGED}]"]
    try:
        with initialize_config_dir(config_dir=str(path.parent), version_base="1.3"):
            node = hydra_compose(path.stem, [*search, *map(_forgiving, overrides)])
        _refuse_missing(OmegaConf.missing_keys(node))
        plain = OmegaConf.to_container(node, resolve=True)
    except (HydraException, OmegaConfBaseException) as e:
        raise UserError(_one_line(e)) from e
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}, OmegaConf.to_yaml(node, resolve=True)


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of overrides with several values (`optim.lr=1e-4,1e-5`), in order."""
    import itertools

    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as e:
        raise UserError(_one_line(e)) from e
    axes = [
        [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    return [list(combination) for combination in itertools.product(*axes)]


def build(cls: type, node: Mapping[str, Any], path: str) -> Any:
    """Make `cls` from plain settings; every mistake is a UserError that names its key under `path`."""
    if "_target_" in node:
        cls = _target(node["_target_"], path)
        node = {k: v for k, v in node.items() if k != "_target_"}
    known = {f.name: f for f in fields(cls)}
    for key in node:
        if key not in known:
            near = _nearest(str(key), known)
            raise UserError(f"{_join(path, key)}: no such setting{near}; allowed here: {', '.join(known) or 'nothing'}")
    for name, f in known.items():
        if name not in node and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{_join(path, name)}: must be given; it has no default")
    hints = typing.get_type_hints(cls, include_extras=True)
    values = {k: _build_value(v, hints[k], _join(path, k)) for k, v in node.items()}
    for name, value in values.items():
        values[name] = _check(hints[name], value, _join(path, name))
    try:
        return cls(**values)
    except ValueError as e:
        raise UserError(f"{path}: {e}" if path and not str(e).startswith(path) else str(e)) from e


def _build_value(value: Any, hint: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        inner = next((t for t in _parts(hint) if is_dataclass(t)), None)
        if "_target_" in value:
            return build(object, value, path)
        if isinstance(inner, type):
            return build(inner, value, path)
        return {k: _build_value(v, None, _join(path, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_build_value(v, hint, f"{path}[{i}]") for i, v in enumerate(value)]
    return value


def _check(hint: Any, value: Any, path: str) -> Any:
    """Check one value against its annotation, converting what YAML cannot say (tuples, `1e-4` as a string)."""
    try:
        return TypeAdapter(_by_instance(hint)).validate_python(value)
    except ValidationError as e:
        error = e.errors()[0]
        at = "".join(f"[{p}]" if isinstance(p, int) else "" for p in error["loc"])
        allowed = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        options = re.findall(r"'([^']+)'", allowed) if error["type"] == "literal_error" else []
        near = _nearest(str(error["input"]), options)
        raise UserError(f"{path}{at}: got {error['input']!r}, allowed is {allowed}{near}") from e


def _by_instance(hint: Any) -> Any:
    """The same annotation, with parts of a run (built by now) checked by their class and methods only."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and origin is None and (is_dataclass(hint) or getattr(hint, "_is_protocol", False)):
        return InstanceOf[hint]
    if origin is None or origin is typing.Literal:
        return hint
    if origin is Annotated:
        return Annotated[(_by_instance(args[0]), *args[1:])]
    inner = tuple(a if a is Ellipsis else _by_instance(a) for a in args)
    return typing.Union[inner] if origin in (types.UnionType, typing.Union) else origin[inner]  # noqa: UP007  (built at run time)


def _target(name: Any, path: str) -> type:
    module, _, attribute = str(name).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as e:
        raise UserError(f"{path}._target_: got {name!r}, which cannot be imported ({e})") from e
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise UserError(f"{path}._target_: got {name!r}, allowed is the path of a dataclass")
    return cls


def _parts(hint: Any) -> Iterable[Any]:
    """The types that an annotation is made of: `Annotated[A | None, ...]` gives A and None."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is not None:
        for inner in typing.get_args(hint):
            yield from _parts(inner)
    else:
        yield hint


def _forgiving(override: str) -> str:
    """Let `a.b=1` set keys that the YAML leaves to their defaults; the schema judges them afterwards."""
    key = override.split("=", 1)[0]
    if "=" not in override or key.startswith(("+", "~", "hydra.")) or key.split("@")[0] in groups():
        return override
    return f"++{override}"


def _refuse_missing(keys: Iterable[str]) -> None:
    missing = sorted(keys)
    if missing:
        raise UserError(
            f"{missing[0]}: must be given, as in {missing[0]}=VALUE" + "".join(f"; {k} too" for k in missing[1:])
        )


def _one_line(error: Exception) -> str:
    """Hydra's and OmegaConf's messages, with a group's options and the nearest one."""
    text = str(error)
    unknown = re.search(r"Could not find '([\w/]+)/([\w.-]+)'", text)
    if unknown:
        group, given = unknown.groups()
        options = [p.stem for p in sorted((PACKAGED / group).glob("*.yaml"))]
        return f"{group}={given}: no such {group}{_nearest(given, options)}; there are {', '.join(options)}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())[:300]


def _nearest(given: str, options: Iterable[str]) -> str:
    match = difflib.get_close_matches(given, list(options), n=1, cutoff=0.5)
    return f", did you mean {match[0]}?" if match else ""


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
