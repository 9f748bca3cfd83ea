"""Started teachers of which each judges its own examples, or all of them everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from opd.hints import among, shown
from opd.needs import Needs
from opd.teachers.mark import marks_of
from opd.teaching import Mark, Scorer, Selective, Stateful
from opd.types import Example, Judgement, Prompt, Reads, Rollout, UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Several:
    """What both kinds have in common: scorers by name."""

    scorers: dict[str, Scorer]
    vocabulary: int
    """Columns that all of them have."""
    shared: tuple[Tensor, Tensor] | None = field(default=None, kw_only=True)
    widths: dict[str, int] = field(default_factory=dict, kw_only=True)
    """Columns of each one's states."""

    def heard(self, judgements: Mapping[str, Sequence[Judgement]]) -> None:
        """Remember how wide each one's states are."""
        self.widths |= {n: js[0].state.shape[1] for n, js in judgements.items() if js and js[0].state is not None}

    def state(self) -> dict[str, Tensor]:
        """What those that learn go on from, under their names."""
        learning = {n: s.state() for n, s in self.scorers.items() if isinstance(s, Stateful)}
        return {f"{name}/{key}": value for name, state in learning.items() for key, value in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from it."""
        for name, scorer in self.scorers.items():
            if isinstance(scorer, Stateful):
                own = f"{name}/"
                scorer.load_state({k.removeprefix(own): v for k, v in state.items() if k.startswith(own)})

    def own(self, rollouts: Sequence[Rollout]) -> Mapping[str, Sequence[Rollout]]:
        """The rollouts that each one judges."""
        return dict.fromkeys(self.scorers, rollouts)

    def reads(self, rollouts: Sequence[Rollout]) -> list[Reads]:
        """What the models of each read of its own."""
        done = {name: self.scorers[name].reads(theirs) for name, theirs in self.own(rollouts).items()}
        return [replace(r, name=f"{name} {r.name}".strip()) for name, reads in done.items() for r in reads]

    def seen(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Of each prompt what every one that judges it is shown, under its name: the same words of the same judges."""
        out: list[dict[str, Any]] = [{} for _ in prompts]
        for name, places in self._shown(prompts).items():
            scorer, theirs = self.scorers[name], [prompts[i] for i in places]
            shown = scorer.seen(theirs) if isinstance(scorer, Several) else map(list, scorer.read(theirs))
            for i, own in zip(places, shown, strict=True):
                out[i][name] = own
        return out

    def _shown(self, prompts: Sequence[Prompt]) -> Mapping[str, Sequence[int]]:
        """The places of the prompts that each one judges."""
        return dict.fromkeys(self.scorers, range(len(prompts)))

    def marks(self) -> Mapping[str, Mark]:
        """Those of each, under its name."""
        return marks_of(self.scorers)

    def close(self) -> None:
        """Free all of them."""
        for scorer in self.scorers.values():
            scorer.close()


@dataclass
class RoutedScorer(Several):
    """Each example is judged by its own teacher. States are padded to the widest, with the teacher's number behind."""

    by: str
    routes: Mapping[str, str]
    default: str | None

    def route(self, example: Example) -> str:
        """The name of its teacher; UserError where there is none."""
        known = {**example.meta, "task": example.task}
        if self.by not in known:
            raise UserError(f"teacher.by={self.by}: no column of {example.name}{among(self.by, known)}")
        found = known[self.by]
        there = found is not None and found == found  # NaN is how tables write that there is none
        value = str(found) if there else "nothing"
        name = self.routes.get(value, self.default) if there else self.default
        if name is None:
            at = f"{self.by}={shown(value)} of {example.name}"
            raise UserError(
                f"teacher.routes: there is none for {at}{among(value, self.routes)}; add a route, or a teacher.default"
            )
        return name

    def admit(self, examples: Iterable[Example]) -> None:
        """Raise UserError for the first example that has no teacher."""
        asking = {name: s for name, s in self.scorers.items() if isinstance(s, Selective)}
        theirs: dict[str, list[Example]] = {name: [] for name in asking}
        for example in examples:
            name = self.route(example)
            if name in theirs:
                theirs[name].append(example)
        for name, scorer in asking.items():
            scorer.admit(theirs[name])

    def own(self, rollouts: Sequence[Rollout]) -> Mapping[str, Sequence[Rollout]]:
        """The rollouts that are led to each one."""
        places = self._places([r.prompt for r in rollouts])
        return {name: [rollouts[i] for i in places.get(name, ())] for name in self.scorers}

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Let every teacher judge its own, in one call each."""
        places = self._places([r.prompt for r in rollouts])
        # Those that have nothing to judge here, too: one in shards has, on another rank.
        judged = {n: s.score([rollouts[i] for i in places.get(n, ())], needs) for n, s in self.scorers.items()}
        self.heard(judged)
        numbers = {name: k for k, name in enumerate(self.scorers)}
        width = max((self.widths.get(name, 0) for name in places), default=0)
        out = {
            i: self._numbered(j, numbers[n], width) for n in places for i, j in zip(places[n], judged[n], strict=True)
        }
        return [out[i] for i in range(len(rollouts))]

    def _numbered(self, judgement: Judgement, number: int, width: int) -> Judgement:
        """Float32, which holds every state and every number as it is, and is one type for all."""
        if judgement.state is None:
            return judgement
        state = judgement.state.new_full((len(judgement.state), width + 1), 0.0).float()
        state[:, : judgement.state.shape[1]] = judgement.state
        state[:, -1] = number
        return replace(judgement, state=state)

    def logits(self, state: Tensor) -> Tensor:
        """Float32 logits [N, V] of each row's own teacher, without a graph."""
        out = state.new_empty(len(state), self.vocabulary)
        for number, (name, scorer) in enumerate(self.scorers.items()):
            rows = (state[:, -1] == number).nonzero()[:, 0]
            if len(rows):
                out[rows] = scorer.logits(state[rows, : self.widths[name]])[:, : self.vocabulary]
        return out

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt as its teacher is shown it."""
        out: list[Sequence[int]] = [()] * len(prompts)
        for name, where in self._places(prompts).items():
            for i, ids in zip(where, self.scorers[name].read([prompts[i] for i in where]), strict=True):
                out[i] = ids
        return out

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """What there is to know of each on its own prompts."""
        places = self._places(prompts)
        return [
            f"{name}: {note}"
            for name, scorer in self.scorers.items()
            for note in scorer.notes([prompts[i] for i in places.get(name, ())])
        ]

    def _shown(self, prompts: Sequence[Prompt]) -> Mapping[str, Sequence[int]]:
        return self._places(prompts)

    def _places(self, prompts: Sequence[Prompt]) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for i, p in enumerate(prompts):
            places.setdefault(self.route(p.example), []).append(i)
        return places


@dataclass
class WeightedScorer(Several):
    """All judge everything. States lie side by side."""

    shares: Mapping[str, float]
    """Weights that add up to 1."""

    def admit(self, examples: Iterable[Example]) -> None:
        """Show them to those that want to see them."""
        asking = [s for s in self.scorers.values() if isinstance(s, Selective)]
        seen = list(examples) if asking else []
        for scorer in asking:
            scorer.admit(seen)

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """The weighted sum of their log-probs; NaN where one of them has nothing to say."""
        import torch

        judged = {name: scorer.score(rollouts, needs) for name, scorer in self.scorers.items()}
        self.heard(judged)
        out = []
        for row in zip(*judged.values(), strict=True):
            logprobs = torch.stack([self.shares[n] * j.logprobs for n, j in zip(judged, row, strict=True)]).sum(0)
            states = [j.state.float() for j in row if j.state is not None]
            out.append(Judgement(logprobs, torch.cat(states, dim=1) if states else None))
        return out

    def logits(self, state: Tensor) -> Tensor:
        """Float32 `sum_i w_i log q_i` [N, V], without a graph; a softmax of it is the normalised product."""
        names = list(self.scorers)
        parts = state.split([self.widths[name] for name in names], dim=1)
        out = state.new_zeros(len(state), self.vocabulary)
        for name, part in zip(names, parts, strict=True):
            logits = self.scorers[name].logits(part)[:, : self.vocabulary]
            out += self.shares[name] * logits.log_softmax(-1)
        return out

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt as the first of them is shown it."""
        return next(iter(self.scorers.values())).read(prompts)

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """What there is to know of each."""
        return [f"{name}: {note}" for name, s in self.scorers.items() for note in s.notes(prompts)]
