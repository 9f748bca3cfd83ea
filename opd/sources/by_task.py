"""Each task's prompts to a source of its own: replay of a dataset beside on-policy distillation, for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opd.hints import among, shown
from opd.seeds import derive
from opd.types import Prompt, Rollout, Sampling, UserError
from opd.writing import Desk, Giving, Repeating, Source, Writer


@dataclass(frozen=True, kw_only=True)
class ByTask:
    """The tasks that are named have their own source, all others share one; `data.weights` decides their shares."""

    tasks: Mapping[str, Any]
    """Sources by the name of a task; the name becomes their rollouts' `origin`."""
    others: Any
    """Source of all other tasks, whose own `origin` stays."""

    def __post_init__(self) -> None:
        """Refuse what is no source."""
        for name, part in {**{f"tasks.{k}": v for k, v in self.tasks.items()}, "others": self.others}.items():
            if not isinstance(part, Source):
                raise ValueError(f"{name}={shown(part)}: allowed is a mapping whose _target_ is a source")

    @property
    def policy(self) -> bool:
        """Whether all tokens are the student's own."""
        return all(part.policy for part in (self.others, *self.tasks.values()))

    @property
    def origins(self) -> frozenset[str]:
        """Names of the tasks, and what the others' source calls its own."""
        own: frozenset[str] = self.others.origins
        return own | frozenset(self.tasks)

    @property
    def repeats(self) -> bool:
        """Whether each part has one completion of a prompt alone."""
        return all(isinstance(part, Repeating) and part.repeats for part in (self.others, *self.tasks.values()))

    def start(self, desk: Desk) -> Writer:
        """Start every part; UserError where there is no such task."""
        for name in self.tasks:
            if name not in desk.tasks:
                raise UserError(f"source.tasks.{name}: no such task{among(name, desk.tasks)}")
        return ByTaskWriter({name: part.start(desk) for name, part in self.tasks.items()}, self.others.start(desk))


@dataclass(frozen=True)
class ByTaskWriter:
    """Started parts."""

    tasks: Mapping[str, Writer]
    others: Writer

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Let each prompt be completed `n` times by the source of its task."""
        done: dict[int, list[Rollout]] = {}
        for name in (None, *self.tasks):
            places = [i for i, p in enumerate(prompts) if self._part(p) == name]
            if not places:
                continue
            writer = self.others if name is None else self.tasks[name]
            drawn = replace(sampling, seed=derive(sampling.seed, "task", name or ""))
            rollouts = writer.sample([prompts[i] for i in places], drawn)
            for k, i in enumerate(places):
                own = rollouts[k * sampling.n : (k + 1) * sampling.n]
                done[i] = own if name is None else [replace(r, origin=name) for r in own]
        return [rollout for i in range(len(prompts)) for rollout in done[i]]

    def given(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Rollout]:
        """The completions of the tasks whose source is the data; see `opd.writing.Giving`."""
        for prompt in prompts:
            name = self._part(prompt)
            part = self.others if name is None else self.tasks[name]
            if isinstance(part, Giving):
                yield from part.given([prompt], sampling)

    def _part(self, prompt: Prompt) -> str | None:
        return prompt.example.task if prompt.example.task in self.tasks else None
