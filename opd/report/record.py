"""A run as its folder tells it: read once, without loading a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd.console import Verdict
from opd.disk import read_text
from opd.plain import flat
from opd.run import directory as runs
from opd.run import health
from opd.run.metrics import read_metrics
from opd.run.overview import read_settings
from opd.run.results import Setting, evaluations, settings_in_training
from opd.run.transcripts import recorded_steps
from opd.types import UserError


@dataclass(frozen=True)
class Record:
    """What a report says of one run."""

    name: str
    """The folder's name; its path where several have the same."""
    run: runs.RunFolder
    rows: tuple[Mapping[str, float], ...]
    """The lines of `metrics.jsonl`, each with its `step`; at least one."""
    settings: Mapping[str, str]
    """Every setting by its full key, such as `optim.lr`."""
    yaml: str
    overrides: tuple[str, ...]
    environment: Mapping[str, Any]
    evaluations: Mapping[str, Mapping[str, Any]]
    """`metrics` and `sampling` of each evaluated model, by its name."""
    recorded: tuple[int, ...]
    """Steps whose rollouts were written down."""
    verdicts: tuple[Verdict, ...] | None
    """What is wrong with it; None where nobody has looked."""
    measured: tuple[Setting, ...]
    """How it was evaluated while it went on; several where that was changed."""

    @property
    def last(self) -> Mapping[str, float]:
        """The newest line."""
        return self.rows[-1]


def find_runs(named: Sequence[str]) -> list[runs.RunFolder]:
    """The runs in these folders, in the order given, each once; the newest one where none is named."""
    paths = list(dict.fromkeys(name.removeprefix("run=") for name in named))
    return [runs.open_run(path) for path in paths] if paths else [runs.newest_run()]


def read_records(found: Sequence[runs.RunFolder]) -> list[Record]:
    """Read what the runs wrote.

    Raises:
        UserError: a run has no step yet, or files that are none of its own.
    """
    names = [run.path.resolve().name for run in found]
    return [
        _read(run, name if names.count(name) == 1 else str(run.path)) for run, name in zip(found, names, strict=True)
    ]


def _read(run: runs.RunFolder, name: str) -> Record:
    rows = read_metrics(run.metrics) if run.metrics.exists() else []
    if not rows:
        raise UserError(f"run={run.path}: it has no step yet; wait until its metrics.jsonl has a line")
    overrides = run.path / "overrides.txt"
    try:
        given = tuple(read_text(overrides).splitlines()) if overrides.is_file() else ()
    except (ValueError, OSError) as e:
        raise UserError(f"{overrides}: it cannot be read: {' '.join(str(e).split())}; delete it") from e
    text, settings = read_settings(run)
    environment = runs.read_environment(run)
    found, recorded = evaluations(run), tuple(recorded_steps(run.rollouts))
    said = health.read(run.health)
    verdicts = None if said is None else tuple(said)
    measured = tuple(settings_in_training(run))
    return Record(
        name, run, tuple(rows), dict(flat(settings)), text, given, environment, found, recorded, verdicts, measured
    )


def differences(records: Sequence[Record]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs: key -> each run's value, `-` where it has none."""
    keys = dict.fromkeys(key for r in records for key in r.settings)
    table = {key: [r.settings.get(key, "-") for r in records] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def default_place(found: Sequence[runs.RunFolder]) -> Path:
    """Where a report goes: into the run, or, of several, into the folder that all of them are in."""
    if len(found) == 1:
        return found[0].path / "report.html"
    parents = {run.path.resolve().parent for run in found}
    if len(parents) > 1:
        raise UserError("--out: the runs are in different folders; name the file, as in --out report.html")
    return found[0].path.parent / "report.html"
