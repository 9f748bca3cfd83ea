"""What a checkpoint was written with: the run's settings as they were, to be compared with those that are there now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from opd.hints import shown
from opd.plain import flat
from opd.run.checkpoint import CONFIG, CONFIG_HELD, UNPROVEN, Checkpoint, Damaged
from opd.run.directory import RunFolder
from opd.run.overview import read_settings, settings_in
from opd.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 4
"""Settings that are named."""


class BegunWith:
    """The settings that a process of a run has begun with, for its checkpoints."""

    def __init__(self, run: RunFolder) -> None:
        self._text = run.config.read_bytes()

    def state(self) -> dict[str, Tensor]:
        """Their bytes."""
        import torch

        return {CONFIG_HELD: torch.frombuffer(bytearray(self._text), dtype=torch.uint8)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """What a run goes on with is what its config says."""


def edited(run: RunFolder, begun: Checkpoint) -> list[str]:
    """What there is to say of a config that is not the one that a checkpoint was written with, if that holds one."""
    held = begun.tensors(CONFIG)
    with suppress(UserError, LookupError, ValueError):
        text = bytes((held or {})[CONFIG_HELD].numpy()).decode("utf-8")
        then = dict(flat(settings_in(text, begun.path / CONFIG)))
        now = dict(flat(read_settings(run)[1]))
        odd = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        said = [f"{key}={shown(now.get(key, '-'))} (it was {shown(then.get(key, '-'))})" for key in odd[:SHOWN]]
        more = f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
        if odd:
            return [f"{run.config} is not what {begun.path.name} was written with: {', '.join(said)}{more}"]
    return []


def told(run: RunFolder, begun: Checkpoint | None, damaged: Sequence[Damaged]) -> list[str]:
    """What is to be said of the checkpoint that a run goes on from, or of its not having any."""
    if begun is None:
        return [f"run={run.path}: it has no checkpoint yet, and begins anew"] if run.config.exists() else []
    lost = f"going on from {begun.path.name}: the steps {begun.step + 1} to {{}} are lost, and are done again"
    unproven = [] if begun.proven else [f"{begun.path}: {UNPROVEN}"]
    return [*map(str, damaged), *(lost.format(d.checkpoint.step) for d in damaged[:1]), *unproven, *edited(run, begun)]
