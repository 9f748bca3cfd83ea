"""What `opd eval`, `opd export` and `opd sample` are asked about, before any weight is looked at; brings no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from opd.config.compose import Composed, Draft, draft, draft_of_run
from opd.devices.one import One
from opd.protocols import Devices
from opd.run.directory import RunFolder, find_run
from opd.types import UserError


@dataclass(frozen=True)
class Asked:
    """A run, or a model and a config, as they were named."""

    draft: Draft
    """The config, with the overrides."""
    run: RunFolder | None = None
    step: str | None = None
    model: str | None = None
    """A folder or hub name given instead of a run."""
    parts: Sequence[str] = ()
    """Modules whose classes the run may name."""

    def settled(self, alone: bool = False) -> Composed:
        """The config with what it leaves open decided; `alone`: as for `lone`, wherever the run computed.

        Where it computes elsewhere than the run did, the run's number of threads says nothing: it was that process's
        share of the cores.
        """
        made = self.draft.checked()
        config = replace(made.config, devices=lone(made.config.devices)) if alone else made.config
        if self.run and config.devices != self._trained_on and "threads" not in self._given:
            config = replace(config, threads=None)
        return replace(made, config=config).settled()

    @property
    def _given(self) -> set[str]:
        return {re.split(r"[.=@]", text.lstrip("+~"))[0] for text in self.draft.overrides}

    @property
    def _trained_on(self) -> Devices:
        if self.run is None or "devices" not in self._given:
            return self.draft.devices
        return draft_of_run(self.run.config, (), self.parts, models=False).devices


def lone(devices: Devices) -> Devices:
    """Where this process alone computes what a run did on these; a model that one device has no room for is on more."""
    apart = devices.apart
    if apart is None or apart.tensor_parallel == 1:
        return One()
    from opd.rollout.apart.settings import Apart

    return Apart(threads=apart.threads, timeout=apart.timeout, tensor_parallel=apart.tensor_parallel)


def asked(named: Mapping[str, str], overrides: Sequence[str], parts: Sequence[str] = ()) -> Asked:
    """What `run=`, `step=`, `model=` and `conf=` name; the newest run where they name nothing.

    Raises:
        UserError: they do not go together, there is no such run, or it names code that nobody has allowed.
    """
    if "model" in named:
        if "conf" not in named:
            raise UserError(
                f"model={named['model']}: also say conf=NAME, for the prompts, the teacher and the sampling"
            )
        for key in {"run", "step"} & named.keys():
            raise UserError(f"{key}={named[key]}: this is of a run, and model={named['model']} is not; leave one out")
        return Asked(draft(named["conf"], overrides, published=True), model=named["model"])
    if "conf" in named:
        raise UserError(f"conf={named['conf']}: a run has its own config; name a model=PATH with it, or drop it")
    run = find_run(named, overrides)
    made = draft_of_run(run.config, overrides, parts, published=True)
    return Asked(made, run, named.get("step"), parts=tuple(parts))
