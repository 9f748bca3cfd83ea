"""What `opd eval`, `opd export` and `opd sample` speak of: a run's checkpoint, or any model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from opd.config.compose import load
from opd.config.settings import Config
from opd.devices.compute import pick_device, pick_dtype
from opd.learner.lora import merged_weights, read_adapter
from opd.models.digests import base_digests
from opd.models.heads import SplitModel, split_model
from opd.models.loading import load_causal_lm, tokenizer_of
from opd.run import checkpoint as ckpt
from opd.run import directory as runs
from opd.types import Pretrained, UserError


@dataclass(frozen=True)
class Subject:
    """A config, and the weights that it is about."""

    config: Config
    run: runs.RunFolder | None
    checkpoint: ckpt.Checkpoint | None
    model: str | None
    """A folder or hub name given instead of a run."""

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


def find_subject(named: Mapping[str, str], overrides: Sequence[str]) -> Subject:
    """Find what `run=`, `step=`, `model=` and `conf=` name; the newest run where they name nothing."""
    if "model" in named:
        if "conf" not in named:
            raise UserError(
                f"model={named['model']}: also say conf=NAME, for the prompts, the teacher and the sampling"
            )
        for key in {"run", "step"} & named.keys():
            raise UserError(f"{key}={named[key]}: this is of a run, and model={named['model']} is not; leave one out")
        return Subject(load(named["conf"], overrides, published=True).settled().config, None, None, named["model"])
    if "conf" in named:
        raise UserError(f"conf={named['conf']}: a run has its own config; name a model=PATH with it, or drop it")
    run = runs.find_run(named, overrides)
    found = ckpt.checkpoints(run.checkpoints)
    if "step" in named:
        steps = {str(c.step): c for c in found}
        if named["step"] not in steps:
            raise UserError(
                f"step={named['step']}: no such checkpoint in {run.path}; there are {', '.join(steps) or 'none'}"
            )
        chosen = steps[named["step"]]
        if problem := ckpt.damage(chosen):
            raise UserError(f"step={named['step']}: {chosen.path} is damaged ({problem}); name another step")
    else:
        newest, damaged = ckpt.latest(run.checkpoints)
        if newest is None or damaged:  # what is evaluated or exported is not taken from elsewhere without a word
            other = f"; step={newest.step} is whole" if newest else ""
            raise UserError(f"{run.checkpoints}: {'; '.join(damaged) or 'there is no checkpoint yet'}{other}")
        chosen = newest
    config = load(str(run.config), overrides, published=True).settled().config
    ckpt.check_start(chosen, config.student, tokenizer_of(config.student.pretrained))
    return Subject(config, run, chosen, None)


def checkpoint_weights(config: Config, folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a checkpoint's model; an adapter is merged into its base on the way out."""
    if (folder / "adapter_config.json").is_file():
        yield from merged_weights(load_adapter(config, folder))
        return
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (safe_open is no mapping)
                yield name, tensors.get_tensor(name)


@contextmanager
def in_torch(config: Config, model: Pretrained) -> Iterator[SplitModel]:
    """A checkpoint's model, or any, in torch for as long as it is read: in the student's dtype, on its device."""
    s, device = config.student, pick_device(config.student.device)
    if (Path(model.path) / "adapter_config.json").is_file():
        loaded = load_adapter(config, Path(model.path)).to(device)
    else:
        loaded = load_causal_lm(model, pick_dtype(s.dtype, device), s.attention, device)
    with torch.no_grad():
        yield split_model(loaded.eval())


def load_adapter(config: Config, folder: Path) -> Any:
    """The run's base model with an adapter on it, on the CPU; UserError where it is not that adapter's base."""
    s = config.student
    dtype = pick_dtype(s.dtype, s.device)
    base = load_causal_lm(s.pretrained, dtype, s.attention, torch.device("cpu"))
    adapted = read_adapter(base, folder)
    if (folder.parent / "state.json").is_file():  # it lies in a checkpoint
        ckpt.check_base(ckpt.Checkpoint(folder.parent), s.pretrained.path, base_digests(adapted))
    return adapted
