"""`opd eval`: what was asked for, carried out in this process or by several that do the same."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property

from opd.commands import jobs
from opd.commands.asked import Asked, asked
from opd.commands.heeded import say_unheeded
from opd.config.blame import blaming
from opd.protocols import Devices
from opd.run.interrupt import AbortSignal

Table = dict[str, dict[str, float]]
"""Name of a row -> its figures."""


class Evaluating(jobs.Ordered[jobs.Order, Table]):
    """Models being measured side by side."""

    kind = "eval"
    first = True
    """Whether it is this process that talks, known when it is done."""

    @cached_property
    def asked(self) -> Asked:
        """What is to be measured, looked into as little as is needed to know where it computes."""
        return asked(self.order.named, self.order.overrides, self.order.parts)

    @property
    def devices(self) -> Devices:
        """Where it computes."""
        return self.asked.draft.devices

    def here(self) -> Table:
        """Measure in this process, with those that it joins."""
        self.asked.draft.checked()  # a mistake in a setting needs no torch to be told
        with self.devices.join() as team:
            self.first = team.rank == 0
            if self.first:
                say_unheeded("eval", self.order.overrides)
            from opd.commands.eval.measure import evaluate_models
            from opd.commands.subject import agreed, subject_of
            from opd.devices.threads import threads
            from opd.plan.remedy import advised

            subject = agreed(team, lambda: subject_of(self.asked))
            config, settings = subject.config, subject.made.settings
            with self.shown(team.rank) as shown, threads(config.threads), advised(config), blaming(settings):
                return evaluate_models(subject, shown, team, self.order.named.get("out"))

    def listening(self) -> AbstractContextManager[AbortSignal]:
        """A signal ends it: there is nothing to save."""
        return AbortSignal()

    def way_on(self, run: str) -> str:
        """From the beginning."""
        return "evaluate again"
