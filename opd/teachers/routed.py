"""Several teachers: each example has its own, or all of them judge everything, by weight."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Annotated, Any

from pydantic import Field

from opd.hints import among, shown
from opd.needs import Provides
from opd.teachers.local import LocalTeacher
from opd.teachers.several import RoutedScorer, WeightedScorer
from opd.teaching import Pupil, Scorer, Teacher
from opd.types import Pretrained, UserError


@dataclass(frozen=True, kw_only=True)
class RoutedTeacher:
    """Settings of several teachers: either `routes` or `weights` say who judges what."""

    teachers: Mapping[str, Any]
    """Teachers by a name of one's own. Those of equal settings, and local ones that differ only in how they read their
    prompts, hold one copy of the weights; those that nothing leads to are not loaded."""
    by: str = "task"
    """What `routes` go by: `task`, the example's key in `data.tasks`, or one of its further columns."""
    routes: Mapping[str, str] | None = None
    """From a value of it to the name of a teacher."""
    default: str | None = None
    """The teacher of all other values. None: they are an error before the first step."""
    weights: Mapping[str, Annotated[float, Field(gt=0)]] | None = None
    """Every teacher judges every sample, `log q = sum_i w_i log q_i` with weights that add up to 1: the reverse KL to
    this is the weighted sum of theirs. These log-probs do not add up to 1; as a distribution they are normalised, which
    makes its KL smaller, at every token by an amount that the student has no part in."""

    def __post_init__(self) -> None:
        """Check that every name is one of a teacher, and that it is clear who judges."""
        if (self.routes is None) == (self.weights is None):
            given = "null" if self.routes is None else "given"
            raise ValueError(f"routes={given}: exactly one of routes and weights must be given, and weights={given}")
        if self.weights is not None and self.default is not None:
            raise ValueError(f"default={self.default}: it is not read with weights; allowed is null")
        for name, teacher in self.teachers.items():
            if not isinstance(teacher, Teacher):
                raise ValueError(f"teachers.{name}={shown(teacher)}: allowed is a mapping whose _target_ is a teacher")
        named = {f"routes.{value}": name for value, name in (self.routes or {}).items()}
        named |= {f"weights.{name}": name for name in self.weights or {}}
        named |= {} if self.default is None else {"default": self.default}
        for key, name in named.items():
            if name not in self.teachers:
                raise ValueError(f"{key}={name}: no such teacher{among(name, self.teachers)}")
        if not named:
            raise ValueError("routes={}: it leads to no teacher; name at least one, or a default")

    @property
    def used(self) -> dict[str, Teacher]:
        """The teachers that something leads to, in the order given."""
        names = {*(self.routes or {}).values(), *(self.weights or {}), self.default}
        return {name: teacher for name, teacher in self.teachers.items() if name in names}

    @property
    def inner(self) -> Mapping[str, Teacher]:
        """The same, by the settings that they stand in."""
        return {f"teachers.{name}": teacher for name, teacher in self.used.items()}

    @property
    def provides(self) -> Provides:
        """What all of them do; with weights no likeliest tokens, which would have to be looked for among all."""
        given = [t.provides for t in self.used.values()]
        least = {f.name: min(getattr(g, f.name) for g in given) for f in fields(Provides)}
        return Provides(**{**least, "spans": False, **({"top_k": 0, "student_top_k": 0} if self.weights else {})})

    def checkpoint(self) -> Pretrained | None:
        """That of the only one; None where there are several."""
        places = [t.checkpoint() for t in self.used.values()]  # asked of all: models that are made are made now
        return places[0] if len(set(places)) == 1 else None

    def start(self, pupil: Pupil) -> Scorer:
        """Load them, each model once; UserError where one does not share the student's vocabulary."""
        scorers: dict[str, Scorer] = {}
        with ExitStack() as stack:
            for name, teacher in self.used.items():
                scorers[name] = scorer = self._shared(teacher, scorers) or teacher.start(pupil)
                stack.callback(scorer.close)
                if scorer.shared is not None:
                    raise UserError(f"teacher.teachers.{name}: it has another tokenizer; allowed is the student's")
            stack.pop_all()
        # All normalise over the columns that all have, so that they can be compared and their batches mixed.
        vocabulary = pupil.size
        if self.provides.distribution:
            vocabulary = min(getattr(s, "vocabulary", pupil.size) for s in scorers.values())
            for scorer in scorers.values():
                if hasattr(scorer, "vocabulary"):
                    scorer.vocabulary = vocabulary
        if self.weights:
            shares = {name: weight / sum(self.weights.values()) for name, weight in self.weights.items()}
            return WeightedScorer(scorers, vocabulary, shares)
        return RoutedScorer(scorers, vocabulary, self.by, self.routes or {}, self.default)

    def _shared(self, teacher: Teacher, started: Mapping[str, Scorer]) -> Scorer | None:
        """One of those that are there, or one over its weights."""
        for name, scorer in started.items():
            if self.teachers[name] == teacher:
                return scorer
            if isinstance(teacher, LocalTeacher) and (over := teacher.share(scorer)) is not None:
                return over
        return None
