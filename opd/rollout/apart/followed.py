"""Rollouts that the first rank has written ahead of the learner, on all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opd.devices.team import Team, first_rank
from opd.rollout.apart.ahead import Ahead, ages
from opd.rollout.drafts import AHEAD, Plan
from opd.rollout.handed import fed, received
from opd.teaching import Stateful
from opd.types import Rollout, Weights


class Followed:
    """`Ahead` of the first rank, whose thread talks to nobody but the engines; the ranks meet in their main threads."""

    def __init__(self, ahead: Any, plan: Plan, team: Team) -> None:
        """`ahead`: the first rank's; None on others."""
        self.stale = False
        self._ahead, self._plan, self._team = ahead, plan, team

    @property
    def kept(self) -> Mapping[str, Stateful]:
        """Itself, on every rank."""
        return {AHEAD: self}

    def take(self, step: int) -> list[Rollout]:
        """The rollouts of a step; see `Ahead.take`."""
        rollouts = received(self._team, self._plan(step)[0], lambda: self._ahead.take(step))
        self.stale = any(ages(rollouts, step))
        return rollouts

    def push(self, weights: Weights, version: int) -> None:
        """Copy the weights, of which all ranks may have a part; see `Ahead.push`."""
        fed(self._team, weights, lambda whole: self._ahead.push(whole, version))

    def settle(self) -> None:
        """Wait until all is written and pushed; raises on all ranks what has failed."""
        first_rank(self._team, lambda: self._ahead.settle())

    def state(self) -> dict[str, Any]:
        """What the first rank has for a checkpoint, which it writes; nothing on others."""
        found: dict[str, Any] = {}
        first_rank(self._team, lambda: found.update(self._ahead.state()))
        return found

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from it, on the first rank."""
        first_rank(self._team, lambda: self._ahead.load_state(state))

    def restore(self, checkpoint: Path) -> str:
        """Go on with the rollouts in a checkpoint's folder; returns what there is to say of it, if anything."""
        return first_rank(self._team, lambda: str(self._ahead.restore(checkpoint)))

    def close(self) -> None:
        """Begin nothing more."""
        if self._ahead is not None:
            self._ahead.close()


def followed(ahead: Ahead | None, plan: Plan, writers: Team | None, team: Team) -> Ahead | Followed:
    """The drafts of all ranks; `ahead` is there where one is among the writers, as `opd.protocols.Devices` says."""
    return ahead if ahead is not None and writers is team else Followed(ahead, plan, team)
