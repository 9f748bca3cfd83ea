"""What of a run's parts does not go together, where it takes more than a look at their settings."""

from __future__ import annotations

from collections.abc import Iterator

from opd.called import called
from opd.protocols import Devices, Objective
from opd.sources.parts import saying
from opd.writing import Engine, Source, Spreading


def added(objective: Objective) -> Iterator[Objective]:
    """An objective, or those that a sum is of, however deep: what holds of the sum need not hold of each."""
    terms = getattr(objective, "terms", {}).values()
    for term in terms:
        yield from added(term.objective)
    if not terms:
        yield objective


def by_policy(objective: Objective) -> bool:
    """Whether it goes by what the student has sampled, or a term of it does, be that of a part of the source alone."""
    terms = getattr(objective, "terms", {}).values()
    return objective.needs.policy or any(term.own.policy or by_policy(term.objective) for term in terms)


def refuse_lockstep(devices: Devices, rollout: Engine, source: Source) -> None:
    """ValueError where two models would write each token together, and each has a process of its own."""
    if devices.apart and getattr(rollout, "lockstep", False) and (name := saying(source, "lockstep")):
        engine = called("rollout", rollout)
        raise ValueError(
            f"source={name}: with rollout={engine} student and teacher write token by token, in one process, and "
            f"devices={called('devices', devices)} gives each its own; allowed are devices=one, devices=ranks, or "
            "rollout=vllm, which mixes by whole samples wherever it is"
        )


def refuse_unspread(devices: Devices, rollout: Engine) -> None:
    """ValueError where an engine is to be on several devices, and cannot."""
    if devices.apart and devices.apart.tensor_parallel > 1 and not isinstance(rollout, Spreading):
        raise ValueError(
            f"devices.tensor_parallel={devices.apart.tensor_parallel}: rollout={called('rollout', rollout)} has its "
            "model on one device; allowed are 1, or rollout=vllm"
        )
