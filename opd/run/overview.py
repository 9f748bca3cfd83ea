"""A run at a glance, for a list of many: what its folder says of it, whatever has become of that; loads no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from opd.config import bounds
from opd.disk import files_below, read_text
from opd.places import typed
from opd.run import health
from opd.run.checkpoint import checkpoints
from opd.run.directory import OWNER, RunFolder
from opd.run.ending import ended
from opd.run.metrics import skim
from opd.run.owner import holder, owner
from opd.run.results import evaluations, setting_at, unlike
from opd.types import UserError

Row = Mapping[str, float]
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C takes a tenth of the time."""

WIDEST = 100
"""Characters of a name: a config allows no more."""


@dataclass(frozen=True)
class Figure:
    """One measured figure."""

    metric: str
    value: float
    step: int | None
    """None where it was not measured in training."""
    low: float | None = None
    high: float | None = None
    """Ends of a 95% interval, where there is one."""


@dataclass(frozen=True)
class Overview:
    """What a list of runs says of one."""

    path: Path
    conf: str
    """Its config's name; empty where it cannot be read."""
    method: str
    """Objective, and source and adapters where they are not the usual ones."""
    state: str
    """`running` (`running?` where the disk knows no locks), `done`, `stopped`, `aborted`, `failed`, `killed`, `ended`
    (nobody has noted how), `damaged`, `no run`."""
    note: str
    """What there is to say of the state: who runs it, why it has failed, what is damaged."""
    step: int | None
    steps: int | None
    checkpoint: int | None
    """Step of the newest; None: there is none."""
    kl: tuple[float, float] | None
    """Reverse KL of its first and its last step, exact where that was measured."""
    best: Figure | None
    """Of its evaluations: the highest accuracy, else the lowest KL."""
    last: Figure | None
    """The same figure as it was last."""
    verdicts: tuple[str, ...] | None
    """Names of what is wrong with it; None where nobody has looked."""
    written: float
    """When it was last written to, in seconds since 1970."""
    bytes: int

    def plain(self) -> dict[str, Any]:
        """The same in values that JSON knows."""
        return asdict(self) | {"path": str(self.path)}


def overviews(root: str | Path) -> list[Overview]:
    """Those of all folders in `root`, last written to first; of `root` alone where that is a run.

    Raises:
        UserError: there is no such folder.
    """
    place = RunFolder.at(str(root)).path
    try:
        found = [place] if (place / "config.yaml").is_file() else [p for p in typed(str(root)).iterdir() if p.is_dir()]
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}; name the folder that runs are in") from error
    return sorted(map(overview, found), key=lambda o: -o.written)


def overview(path: Path) -> Overview:
    """What a folder says of a run, and what is wrong with it where it is none, or is damaged."""
    run, problems = RunFolder(path), []
    settings: Mapping[str, Any] = {}
    rows: Sequence[Row] = ()
    made: Mapping[str, Mapping[str, Any]] = {}
    try:
        _, settings = read_settings(run)
    except UserError as error:
        problems.append(str(error))
    try:
        rows = skim(run.metrics)
        made = evaluations(run)
    except UserError as error:
        problems.append(str(error))
    newest = max((c.step for c in checkpoints(run.checkpoints)), default=None)
    steps, name = settings.get("steps"), settings.get("name")
    done = max((int(row["step"]) for row in rows), default=None)
    said, best, last = health.read(run.health), *figures(run, rows, made)
    size, written = weigh(path) if run.config.exists() else (0, _changed(path))  # a stranger's may be a whole disk
    found = Overview(
        path, name[:WIDEST] if isinstance(name, str) else "", method(settings), "", "", done,
        steps if isinstance(steps, int) else None, newest, divergence(rows), best, last,
        None if said is None else tuple(v.name for v in said), written, size,
    )  # fmt: skip
    return stated(found, run, problems)


def read_settings(run: RunFolder) -> tuple[str, Mapping[str, Any]]:
    """A run's resolved settings, as their file's text too; UserError where they are none, or more than a config has."""
    try:
        text = read_text(run.config, bounds.LARGEST)
    except (ValueError, OSError) as error:
        raise UserError(f"{run.config}: {getattr(error, 'strerror', None) or error}") from error
    return text, settings_in(text, run.config)


def settings_in(text: str, file: Path) -> Mapping[str, Any]:
    """The same of the text of a file."""
    try:
        bounds.check_text(file, text)
        found = yaml.load(text, LOADER)
        if isinstance(found, dict):
            return found
        why = "it is no mapping of settings"
    except (yaml.YAMLError, ValueError, LookupError) as error:
        why = " ".join(str(error).split())
    raise UserError(f"{file}: {why}")


def stated(found: Overview, run: RunFolder, problems: Sequence[str]) -> Overview:
    """With the state of the run, which is what its owner, its own note and its checkpoints say, in this order."""
    said, at = ended(run.path), run.path / OWNER
    held = holder(run.path)
    short = found.step is not None and found.step > (found.checkpoint or 0)
    if held is not None:
        state, note = ("running", held) if held else ("running?", f"{owner(at)}, if it is still there; no locks here")
    elif not run.config.is_file():
        state, note = "no run", "it holds no config.yaml"
    elif problems:
        state, note = "damaged", "; ".join(problems)
    elif at.exists():
        state, note = "killed", f"{owner(at)} has ended without a word"
    elif said:
        state, note = said
    elif found.steps is not None and (found.checkpoint or 0) >= found.steps:
        state, note = "done", ""
    else:
        state, note = "ended", "its steps after the last checkpoint are lost" if short else ""
    return replace(found, state=state, note=note)


def method(settings: Mapping[str, Any]) -> str:
    """`reverse_kl`, or `gkd, mixed, lora`: the files of the parts that it is made of."""
    objective, source, student = (settings.get(name) for name in ("objective", "source", "student"))
    terms = objective.get("terms") if isinstance(objective, dict) else None
    several = [t.get("objective") for t in terms.values() if isinstance(t, dict)] if isinstance(terms, dict) else []
    what = "+".join(filter(None, map(_file, several))) or _file(objective)
    adapted = "lora" if isinstance(student, dict) and student.get("lora") else ""
    return ", ".join(filter(None, (what, "" if _file(source) == "student" else _file(source), adapted)))


def _file(part: Any) -> str:
    target = part.get("_target_") if isinstance(part, dict) else None
    return target.rsplit(".", 2)[-2] if isinstance(target, str) and "." in target else ""


def divergence(rows: Sequence[Row]) -> tuple[float, float] | None:
    """The reverse KL as it was first and last, nats a token."""
    for metric in ("kl/exact", "kl/sampled"):
        found = [row[metric] for row in rows if math.isfinite(row.get(metric, math.nan))]
        if found:
            return found[0], found[-1]
    return None


def figures(
    run: RunFolder, rows: Sequence[Row], made: Mapping[str, Mapping[str, Any]]
) -> tuple[Figure | None, Figure | None]:
    """The best and the last of what was evaluated: in training, as the last was, or else by `opd eval`."""
    for metric, better in (("eval/accuracy", max), ("eval/kl", min)):
        found = [f for row in rows if (f := _figure(row, metric, int(row["step"])))]
        others = [
            f for name, e in made.items() if name.startswith("student after") if (f := _figure(e["metrics"], metric))
        ]
        if found:
            last = setting_at(run, found[-1].step or 0)
            found = [f for f in found if not unlike(setting_at(run, f.step or 0), last)]
        if found := found or others:
            return better(found, key=lambda f: f.value), found[-1]
    return None, None


def _figure(row: Row, metric: str, step: int | None = None) -> Figure | None:
    low, high = (row.get(metric + end) for end in ("_low", "_high"))
    return Figure(metric, row[metric], step, low, high) if math.isfinite(row.get(metric, math.nan)) else None


def weigh(path: Path) -> tuple[int, float]:
    """Bytes of a folder's files, and when it or one of them was last written to; links are not followed."""
    size, written = 0, 0.0
    for file in files_below(path):
        with suppress(OSError):  # gone meanwhile
            there = file.lstat()
            size, written = size + there.st_size, max(written, there.st_mtime)
    return size, written or _changed(path)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
