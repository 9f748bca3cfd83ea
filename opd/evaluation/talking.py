"""Evaluations hold conversations with the tasks that answer, of as many turns as in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from opd.seeds import derive
from opd.sources.multi_turn import MultiTurn
from opd.types import Prompt, Rollout, Sampling
from opd.writing import Desk


@dataclass(frozen=True)
class Talking:
    """Has the desk's engine complete prompts, or hold conversations from them."""

    desk: Desk
    turns: Callable[[str], int]
    """Of the student at most, by the name of a task; 1: completions."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Complete every prompt `n` times, those of tasks that are alike in this together."""
        counts = [self.turns(p.example.task) for p in prompts]
        done: dict[int, list[Rollout]] = {}
        for count in dict.fromkeys(counts):
            places = [i for i, own in enumerate(counts) if own == count]
            alone = len(places) == len(prompts)
            drawn = sampling if alone else replace(sampling, seed=derive(sampling.seed, "turns", count))
            writer = self.desk.engine if count == 1 else MultiTurn(count).start(self.desk)
            written = iter(writer.sample([prompts[i] for i in places], drawn))
            done |= {i: [next(written) for _ in range(sampling.n)] for i in places}
        return [rollout for i in range(len(prompts)) for rollout in done[i]]
