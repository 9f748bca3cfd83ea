"""Several objectives at once, each with its weight, and each on all completions or on those of one origin."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from opd.needs import Needs
from opd.protocols import Objective
from opd.types import Completions, Tokens, UserError


@dataclass(frozen=True)
class Term:
    """One of the objectives."""

    objective: Objective
    weight: Annotated[float, Field(ge=0)] = 1.0
    origin: str | None = None
    """Only completions that this part of the source wrote; None: all of them."""

    @property
    def needs(self) -> Needs:
        """The objective's; of a part of the source, that it is there, and not that the other parts have a policy."""
        if self.origin is None:
            return self.objective.needs
        return replace(self.objective.needs, policy=False, origins=frozenset({self.origin}))


@dataclass(frozen=True)
class Weighted:
    """Config of a weighted sum: `sum_k weight_k * loss_k`, each token still divided by all trained tokens of the step.

    Policy-gradient terms of one kind add up to the policy gradient under the weighted sum of their advantages (`ppo`:
    as long as no ratio is clipped).
    """

    terms: Mapping[str, Term]
    """By names of your choice."""

    def __post_init__(self) -> None:
        """Refuse sums of nothing, and sums in sums: their advantages would need a place of their own."""
        if not self.terms:
            raise ValueError("terms: at least one is needed")
        for name, term in self.terms.items():
            if isinstance(term.objective, Weighted):
                raise ValueError(f"terms.{name}.objective: a sum within a sum; put its terms beside the others")

    @property
    def needs(self) -> Needs:
        """What any of the terms needs."""
        return functools.reduce(operator.or_, (term.needs for term in self.terms.values()))

    def advantages(self, completions: Completions) -> Tensor:
        """Each term's advantages and its weight at each token, [B, T, 2K]; both 0 where the term has no say."""
        columns = []
        for name, term in self.terms.items():
            rows = torch.tensor([term.origin in (None, o) for o in completions.origins], dtype=torch.bool)
            part = completions if term.origin is None else select(completions, rows)
            values, weights = (torch.zeros_like(completions.behavior_logprobs) for _ in range(2))
            if term.objective.needs.policy and part.behavior_logprobs.isnan().any():
                raise UserError(
                    f"objective.terms.{name}.origin={term.origin}: a policy gradient needs tokens that the "
                    "student wrote, with their log-probs; allowed is a part of the source that samples the student"
                )
            values[rows] = term.objective.advantages(part)
            weights[rows] = term.weight * part.mask.to(weights.dtype)
            columns += [values, weights]
        return torch.stack(columns, dim=-1)

    def loss(self, tokens: Tokens) -> Tensor:
        """Weighted sum of the terms' losses of each token, [N]."""
        total = 0.0 * tokens.logprobs  # has a graph, though no term may have a say in this chunk
        for k, term in enumerate(self.terms.values()):
            values, weights = tokens.advantages[:, 2 * k], tokens.advantages[:, 2 * k + 1]
            if term.origin is None:
                total = total + weights * term.objective.loss(replace(tokens, advantages=values))
            elif len(rows := weights.nonzero().squeeze(-1)):
                # Left out, and not weighted by 0: the log mu of tokens that others wrote is NaN.
                part = replace(tokens.select(rows), advantages=values[rows])
                total = total.index_add(0, rows, weights[rows] * term.objective.loss(part))
        return total


def select(completions: Completions, rows: Tensor) -> Completions:
    """Only those sequences of a step that `rows`, bool [B], holds for."""
    chosen = {k: v[rows] for k, v in vars(completions).items() if k != "origins"}
    origins = tuple(o for o, keep in zip(completions.origins, rows.tolist(), strict=True) if keep)
    return Completions(**chosen, origins=origins)
