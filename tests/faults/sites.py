"""Where a fault of the disk is tried, and what one is."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from opd.run.checkpoint import checkpoints
from tests.faults.run import ROOT

SHORT = ("steps=4", "checkpoint.every=2", "checkpoint.keep=2", "eval.every=0", "eval.size=2", "preflight.prompts=2",
         "log.rollouts_every=1")  # fmt: skip


@dataclass(frozen=True)
class Made:
    """What nobody changes."""

    config: Path
    run: Path
    """A run of four steps with checkpoints of two."""
    end: dict[str, torch.Tensor]
    """The weights that it ended with."""


@dataclass(frozen=True)
class Site:
    """Where a fault is tried."""

    folder: Path
    made: Made

    @property
    def runs(self) -> Path:
        """What may be a disk of its own."""
        return self.folder / "runs"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.runs / "run"

    @property
    def aside(self) -> Path:
        """A folder in which there is room."""
        return self.folder / "aside"

    def settle(self) -> None:
        """Give this process a home and a temporary folder of its own."""
        os.environ |= {"HOME": f"{self.folder}/home", "TMPDIR": f"{self.folder}/tmp", "OMP_NUM_THREADS": "1"}
        os.environ |= {"PYTHONPATH": str(ROOT), "OPD_PARTS": "tests"}
        tempfile.tempdir = None

    def train(self, *more: str, harm: str = "", call: int = 0) -> list[str]:
        """What begins the run; `harm`: a shell's command, done before a judgement of the teacher."""
        own = ["teacher._target_=tests.fakes.HarmfulTeacher", f"teacher.harm='{harm}'", f"teacher.call={call}"]
        return ["train", f"conf={self.made.config}", f"run={self.run}", *SHORT, *(own if harm else []), *more]

    def resume(self, *more: str) -> list[str]:
        """What goes on with it."""
        return ["train", "--resume", f"run={self.run}", *more]


Act = Callable[[Site], Any]


def spelled(site: Site, text: str) -> str:
    """A command with its paths: RUN for the run's folder, HERE for the case's."""
    return text.replace("RUN", str(site.run)).replace("HERE", str(site.folder))


def harmed(text: str, call: int, *more: str) -> Callable[[Site], list[str]]:
    """A new run in which a shell does something before a judgement of the teacher."""
    return lambda site: site.train(*more, harm=spelled(site, text), call=call)


def nothing(site: Site) -> None:
    """No harm, or nothing to be mended."""


@dataclass(frozen=True)
class Fault:
    """One of them."""

    group: str
    name: str
    typed: Callable[[Site], list[str]]
    harm: Act = nothing
    """Done before."""
    inside: Act = nothing
    """Done to the process that carries the command out."""
    mend: Act = nothing
    """Takes the fault away."""
    steps: int | None = None
    """Steps that the run has behind it, up to four; None: there is none."""
    holds: bool | None = False
    """Whether the command has to work all the same; None: it may, or say why not."""
    again: Callable[[Site], list[str]] | None = None
    """What is typed when the fault is gone; None: the run goes on, or the command is repeated."""
    out: Callable[[Site], Path] | None = None
    """What a command makes that is no run."""
    own: bool = False
    """Whether it needs a process of its own, for what is decided when Python starts."""
    mounts: bool = False
    """Whether a disk has to be mounted."""
    check: Callable[[Site], Iterator[str]] = lambda site: iter(())
    """What else is wrong with what was made."""
    says: Callable[[Site], Any] = lambda site: site.folder
    """What the line has to have in it."""

    def __str__(self) -> str:
        return f"{self.group}, {self.name}"


def lay(site: Site, steps: int) -> None:
    """Put a run there that has some steps behind it."""
    site.runs.mkdir(exist_ok=True)
    shutil.copytree(site.made.run, site.run)
    for checkpoint in checkpoints(site.run / "checkpoints"):
        if checkpoint.step > steps:
            shutil.rmtree(checkpoint.path)
