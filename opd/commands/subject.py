"""What `opd eval`, `opd export` and `opd sample` speak of: a run's checkpoint, or any model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from opd.config.compose import load
from opd.config.settings import Config
from opd.devices.compute import pick_device, pick_dtype
from opd.learner.lora import merged_weights
from opd.models.heads import SplitModel, split_model
from opd.models.loading import load_causal_lm, resolve_model
from opd.run import checkpoint as ckpt
from opd.run import directory as runs
from opd.types import UserError


@dataclass(frozen=True)
class Subject:
    """A config, and the weights that it is about."""

    config: Config
    run: runs.RunFolder | None
    checkpoint: ckpt.Checkpoint | None
    model: str | None
    """A folder or hub name given instead of a run."""

    @property
    def base(self) -> str:
        """The model that the engine loads: the one given, or the one that the run started from."""
        return self.model or resolve_model(self.config.student.model)

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
    else:
        chosen = ckpt.latest(run.checkpoints)
    return Subject(load(str(run.config), overrides, published=True).settled().config, run, chosen, None)


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
def in_torch(config: Config, model: str | Path) -> Iterator[SplitModel]:
    """A checkpoint's model, or any, in torch for as long as it is read: in the student's dtype, on its device."""
    s, device = config.student, pick_device(config.student.device)
    if (Path(model) / "adapter_config.json").is_file():
        loaded = load_adapter(config, Path(model)).to(device)
    else:
        loaded = load_causal_lm(str(model), pick_dtype(s.dtype, device), s.attention, device, s.trust_remote_code)
    with torch.no_grad():
        yield split_model(loaded.eval())


def load_adapter(config: Config, folder: Path) -> Any:
    """The run's base model with an adapter on it, on the CPU."""
    from peft import PeftModel

    s = config.student
    dtype = pick_dtype(s.dtype, s.device)
    base = load_causal_lm(resolve_model(s.model), dtype, s.attention, torch.device("cpu"), s.trust_remote_code)
    return PeftModel.from_pretrained(base, folder)
