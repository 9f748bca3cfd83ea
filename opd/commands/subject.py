"""What `opd eval`, `opd export` and `opd sample` speak of: a run's checkpoint, or any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opd.commands.asked import Asked
from opd.config.compose import Composed, Draft, read_back
from opd.config.settings import Config
from opd.console import Console
from opd.devices.compute import pick_device, pick_dtype
from opd.devices.team import Solo, Team, first_rank
from opd.learner.lora import merged_weights, read_adapter
from opd.models.digests import base_digests
from opd.models.files import weights_of
from opd.models.fingerprint import fingerprints
from opd.models.heads import SplitModel, split_model
from opd.models.loading import load_causal_lm, tokenizer_of
from opd.models.shards import loading_place, sharded
from opd.run import checkpoint as ckpt
from opd.run import directory as runs
from opd.run.metrics import read_metrics
from opd.run.resuming import check_base, check_start
from opd.run.stopping import best, settings_of
from opd.types import Pretrained, UserError, again

Told = tuple[str, Sequence[str], Sequence[str | None]]
"""The settings as YAML, overrides, and as far as there are such: the run's folder, the checkpoint's, the model."""

BEST = "best"
"""What `step=` may name beside a number."""
READ = "model/"
"""What of a checkpoint is used, and so compared with what was written; of the rest the sizes are."""


@dataclass(frozen=True)
class Subject:
    """A config, and the weights that it is about."""

    made: Composed
    """Its config, with nothing left open."""
    run: runs.RunFolder | None
    checkpoint: ckpt.Checkpoint | None
    model: str | None
    """A folder or hub name given instead of a run."""
    parts: Sequence[str] = ()
    """Modules whose classes the run's config may name."""

    @property
    def config(self) -> Config:
        """Its settings."""
        return self.made.config

    @property
    def base(self) -> Pretrained:
        """The model that the engine loads: the one given, or the one that the run started from."""
        student = self.config.student
        return student.pretrained if self.model is None else Pretrained(self.model, student.trust_remote_code)

    @property
    def trained(self) -> Pretrained:
        """The model in its checkpoint, or that model's adapter."""
        assert self.checkpoint is not None
        return replace(self.base, path=str(self.checkpoint.model))

    @property
    def label(self) -> str:
        """How a table calls it."""
        return self.model or f"student after {self.checkpoint.step if self.checkpoint else 0} steps"


def subject_of(asked: Asked, alone: bool = False) -> Subject:
    """The config and the checkpoint that were asked for, by default the newest; `alone` as for `Asked.settled`.

    The checkpoint stays there as long as the subject does: its run may write newer ones meanwhile.
    """
    run = asked.run
    if run is None:
        return Subject(asked.settled(alone), None, None, asked.model)
    there = ckpt.held(run.checkpoints)
    step = best_step(run, asked.draft, [c.step for c in there]) if asked.step == BEST else asked.step
    chosen = chosen_checkpoint(run, step, there)
    made = asked.settled(alone)
    check_start(chosen, made.config.student, tokenizer_of(made.config.student.pretrained))
    return Subject(made, run, chosen, None, asked.parts)


def warn_of_base(subject: Subject, console: Console) -> None:
    """Say so where a run began from another model than is there now; an adapter is refused on one when it is read."""
    now = fingerprints({runs.STUDENT: subject.base})
    if (
        subject.run
        and subject.checkpoint
        and not subject.config.student.lora
        and any(subject.run.exchanged({"models": now}).values())
    ):
        console.warn(
            f"student.model={subject.base}: this is not the model that the run began with; what is said of the student "
            "before is of this one"
        )


def best_step(run: runs.RunFolder, draft: Draft, there: Sequence[int]) -> str:
    """The step of the checkpoint, of those that are there, that a run keeps as its best; UserError where none is."""
    metric = (draft.settings.get("checkpoint") or {}).get("best")
    if not isinstance(metric, str):
        raise UserError(f"step={BEST}: {run.path} was trained without checkpoint.best, by which a run keeps its best "
                        "checkpoint; name a step")  # fmt: skip
    rows = read_metrics(run.metrics)
    if (found := best(metric, rows, there, settings_of(run, [r for r in rows if r["step"] in there]))) is None:
        raise UserError(f"step={BEST}: no checkpoint in {run.path} is of a step with {metric} in metrics.jsonl; name a "
                        f"step, there are {', '.join(map(str, there)) or 'none'}")  # fmt: skip
    return str(found)


def chosen_checkpoint(run: runs.RunFolder, step: str | None, there: Sequence[ckpt.Checkpoint]) -> ckpt.Checkpoint:
    """A run's checkpoint of a step, or the newest that is there; UserError where there is none, or it is damaged."""
    if step is not None:
        steps = {str(c.step): c for c in there}
        if step not in steps:
            raise UserError(f"step={step}: no such checkpoint in {run.path}; there are {', '.join(steps) or 'none'}")
        if problem := ckpt.damage(steps[step], READ):
            raise UserError(f"step={step}: {steps[step].path} is damaged ({problem}); name another step")
        return steps[step]
    newest, damaged = ckpt.newest(there, READ)
    if newest is None or damaged:  # what is evaluated or exported is not taken from elsewhere without a word
        other = f"; step={newest.step} is whole" if newest else ""
        raise UserError(f"{run.checkpoints}: {'; '.join(map(str, damaged)) or 'there is no checkpoint yet'}{other}")
    return newest


def agreed(team: Team, find: Callable[[], Subject]) -> Subject:
    """The subject that the first rank finds, on all: the newest checkpoint and idle cores come and go."""
    found = cache(find)  # the first one's own, which keeps the checkpoint there
    said = first_rank(team, lambda: told(found()))
    return found() if team.rank == 0 else heard(said)


def told(subject: Subject) -> Told:
    """A subject in plain values, for another process; `heard` takes them back."""
    places = [str(found.path) if found else None for found in (subject.run, subject.checkpoint)]
    return subject.made.yaml, subject.made.overrides, (*places, subject.model)


def heard(told: Told) -> Subject:
    """The subject that another process has found."""
    yaml, overrides, (run, checkpoint, model) = told
    return Subject(
        read_back(yaml, tuple(overrides)), runs.RunFolder(Path(run)) if run else None,
        ckpt.Checkpoint(Path(checkpoint)) if checkpoint else None, model,
    )  # fmt: skip


@again
def checkpoint_weights(config: Config, folder: Path, adapted: Any = None) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a checkpoint's model, all that there have to be; an adapter is merged into its base.

    `adapted`: the base with the adapter on it, where that is loaded already.
    """
    if (folder / "adapter_config.json").is_file():
        yield from merged_weights(load_adapter(config, folder) if adapted is None else adapted)
    else:
        yield from weights_of(replace(config.student.pretrained, path=str(folder)))


@contextmanager
def in_torch(config: Config, model: Pretrained, team: Team | None = None) -> Iterator[SplitModel]:
    """A checkpoint's model, or any, in torch for as long as it is read: in the student's dtype, on its device.

    In shards, where a team has them.
    """
    team = team or Solo()
    s, device = config.student, pick_device(config.student.device)
    place = loading_place(team, device, s.attention)
    if (Path(model.path) / "adapter_config.json").is_file():
        loaded = load_adapter(config, Path(model.path)).to(place)
    else:
        loaded = load_causal_lm(model, pick_dtype(s.dtype, device), s.attention, place)
    with torch.no_grad():
        yield sharded(split_model(loaded.requires_grad_(False).eval()), team)


def load_adapter(config: Config, folder: Path) -> Any:
    """The run's base model with an adapter on it, on the CPU; UserError where it is not that adapter's base."""
    s = config.student
    dtype = pick_dtype(s.dtype, s.device)
    base = load_causal_lm(s.pretrained, dtype, s.attention, torch.device("cpu"))
    adapted = read_adapter(base, folder)
    if (folder.parent / "state.json").is_file():  # it lies in a checkpoint
        check_base(ckpt.Checkpoint(folder.parent), s.pretrained.path, base_digests(adapted))
    return adapted
