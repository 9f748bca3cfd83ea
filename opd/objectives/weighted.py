"""Several objectives at once, each with its weight, and each on all completions or on those of one origin."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.objectives.hold import Hold
from opd.protocols import Judging, Objective, TokenWeight
from opd.tensors import Advantages, Completions, Tokens, each
from opd.types import UserError

WEIGHT = "optim/weight/"
"""What the figure of a term's weight begins with."""


@dataclass(frozen=True)
class Term:
    """One of the objectives."""

    objective: Objective
    """Any but a weighted sum, with its own settings."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Its share of the sum, in any unit."""
    origin: str | None = None
    """Only completions that this part of the source wrote; None: all of them."""
    tokens: Mapping[str, TokenWeight] = field(default_factory=dict)
    """How much of it each token counts, by names of your choice; several are multiplied."""
    hold: Hold | None = None
    """What its weight is changed by in the run, which begins with that given; None: it stays."""

    def __post_init__(self) -> None:
        """Refuse weights on parts of what is learned from as a whole, and one that could not change."""
        if self.hold is not None and not self.weight:
            raise ValueError("weight=0: with hold it would stay 0; allowed is a number above 0")
        if self.hold is not None and self.weight > self.hold.most:
            raise ValueError(f"weight={self.weight:g}: allowed is at most hold.most={self.hold.most:g}")
        if isinstance(self.objective, Weighted) and self.objective.figures():
            raise ValueError("hold: a sum within a sum has none; allowed is a hold of the outer sum's term")
        if self.tokens and self.objective.needs.spans:
            raise ValueError(
                f"tokens: {', '.join(self.tokens)} cannot weigh tokens of byte spans, which have one signal together; "
                "allowed are objectives for a teacher with the student's tokenizer"
            )

    @property
    def own(self) -> Needs:
        """What the objective, the weights on its tokens and its own weight need, of the completions that they see."""
        held = Needs() if self.hold is None else self.hold.needs
        return functools.reduce(operator.or_, (w.needs for w in self.tokens.values()), self.objective.needs | held)

    @property
    def needs(self) -> Needs:
        """Of a part of the source, that it is there, and not that the other parts have a policy."""
        if self.origin is None:
            return self.own
        return replace(self.own, policy=False, origins=self.own.origins | {self.origin})

    def weigh(self, completions: Completions) -> Tensor:
        """What each token's loss counts, [B, T]; 0 where masked."""
        weights = self.weight * completions.mask.float()
        for rule in self.tokens.values():
            weights = weights * rule.weigh(completions)
        return weights


@dataclass(frozen=True)
class Weighted:
    """Config of a weighted sum: `sum_k weight_k * loss_k`, each token still divided by all trained tokens of the step.

    Policy-gradient terms of one kind add up to the policy gradient under the weighted sum of their advantages (`ppo`:
    as long as no ratio is clipped).
    """

    terms: Mapping[str, Term]
    """By names of your choice."""

    def __post_init__(self) -> None:
        """Refuse sums of nothing."""
        if not self.terms:
            raise ValueError("terms: at least one is needed")

    @property
    def needs(self) -> Needs:
        """What any of the terms needs."""
        return functools.reduce(operator.or_, (term.needs for term in self.terms.values()))

    def judging_now(self) -> Self:
        """The same for a run whose samples are stale: so do the terms that judge sampled tokens."""
        terms = {
            name: replace(term, objective=term.objective.judging_now()) if isinstance(term.objective, Judging) else term
            for name, term in self.terms.items()
        }
        return replace(self, terms=terms)

    def figures(self) -> dict[str, float]:
        """The weights that a run changes."""
        return {f"{WEIGHT}{name}": term.weight for name, term in self.terms.items() if term.hold is not None}

    def after(self, row: Mapping[str, float]) -> Self:
        """The same with the weights that follow from a step's."""
        terms = dict(self.terms)
        for name, term in self.terms.items():
            if term.hold is not None:
                weight, figure = row.get(WEIGHT + name, term.weight), row.get(term.hold.figure, math.nan)
                terms[name] = replace(term, weight=term.hold.next(weight, figure))
        return replace(self, terms=terms)

    def advantages(self, completions: Completions) -> Advantages:
        """By the name of each term its `own` ones, and its `weights` [B, T]; both 0 where it has no say."""
        out = {}
        for name, term in self.terms.items():
            rows = torch.tensor([term.origin in (None, o) for o in completions.origins], dtype=torch.bool)
            part = completions if term.origin is None else select(completions, rows)
            if term.own.policy and part.behavior_logprobs.isnan().any():
                raise UserError(
                    f"objective.terms.{name}.origin={term.origin}: a policy gradient needs tokens that the "
                    "student wrote, with their log-probs; allowed is a part of the source that samples the student"
                )
            found = {"own": term.objective.advantages(part), "weights": term.weigh(part)}
            out[name] = each(functools.partial(spread, rows=rows), found)
        return out

    def loss(self, tokens: Tokens) -> Tensor:
        """Weighted sum of the terms' losses of each token, [N]."""
        total = 0.0 * tokens.logprobs  # has a graph, though no term may have a say in this chunk
        for name, term in self.terms.items():
            weights = tokens.advantages[name]["weights"]
            part = replace(tokens, advantages=tokens.advantages[name]["own"])
            if term.origin is None:
                total = total + weights * term.objective.loss(part)
            elif len(rows := weights.nonzero().squeeze(-1)):
                # Left out, and not weighted by 0: the log mu of tokens that others wrote is NaN.
                total = total.index_add(0, rows, weights[rows] * term.objective.loss(part.select(rows)))
        return total


def spread(values: Tensor, rows: Tensor) -> Tensor:
    """Values of the sequences that `rows`, bool [B], holds for, in their places among zeros."""
    out = values.new_zeros(len(rows), *values.shape[1:])
    out[rows] = values
    return out


def select(completions: Completions, rows: Tensor) -> Completions:
    """Only those sequences of a step that `rows`, bool [B], holds for."""
    chosen: dict[str, Any] = each(itemgetter(rows), {k: v for k, v in vars(completions).items() if k != "origins"})
    origins = tuple(o for o, keep in zip(completions.origins, rows.tolist(), strict=True) if keep)
    return Completions(**chosen, origins=origins)
