"""Everyday requests with rules for the answer's form that code can check: how well a model does as it is told."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from opd.hints import among
from opd.tasks.cells import text_of
from opd.tasks.constraints import KINDS, kept
from opd.tasks.drawn import Drawn
from opd.tasks.files import load
from opd.types import Example, Split

PROMPTS = "pkg://opd/data/requests.jsonl"


@dataclass(frozen=True)
class Instructions:
    """A request, and one rule or several that do not contradict each other; what is asked matters to no rule."""

    path: str = PROMPTS
    """A file of requests of any kind that rows have, a folder, or a dataset's name on the hub."""
    prompt_column: str = "prompt"
    """Column of the request, a text."""
    kinds: tuple[str, ...] = ()
    """Rules to draw from, by the names in `opd.tasks.constraints.KINDS`; empty: all of them."""
    min_rules: Annotated[int, Field(ge=1, le=5)] = 1
    """Fewest rules in a prompt."""
    max_rules: Annotated[int, Field(ge=1, le=5)] = 3
    """Most rules in a prompt; fewer where those drawn leave no room for another."""
    strict: bool = False
    """Score 1 only where all rules are kept; else the share of them that is."""
    size: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    """Length of the train split; items are made on access, drawn with replacement."""
    eval_size: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Length of the eval split."""
    seed: int = 0
    """Which examples are drawn."""

    def __post_init__(self) -> None:
        """Refuse an empty range, and rules that there are not."""
        if self.max_rules < self.min_rules:
            raise ValueError(f"max_rules={self.max_rules}: allowed is at least min_rules={self.min_rules}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"kinds: no rule {kind!r}{among(kind, list(KINDS))}")

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split; no prompt is in both, by its hash, though a request is, with other rules.

        Raises:
            UserError: the file of requests cannot be read.
        """
        _requests(self.path, self.prompt_column)
        return Drawn(self, split)

    def verify(self, example: Example, text: str) -> float:
        """Give the share of the rules that a completion keeps; with `strict`, 1 where it keeps all, else 0."""
        results = [kept(rule["kind"], rule, text) for rule in example.meta["rules"]]
        return float(all(results)) if self.strict else sum(results) / len(results)

    def details(self, example: Example, text: str) -> Mapping[str, tuple[float, float]]:
        """Give the four figures of IFEval: of whole prompts and of single rules, each strictly and loosely.

        Loosely a rule is kept where a variant of the completion keeps it: without its first line, its last line or
        both, each with asterisks and without (Zhou et al., 2023).
        """
        rules, out = example.meta["rules"], {}
        for name, texts in {"strict": [text], "loose": _variants(text)}.items():
            results = [any(kept(rule["kind"], rule, t) for t in texts) for rule in rules]
            out[f"prompt_{name}"] = (float(all(results)), 1.0)
            out[f"instruction_{name}"] = (float(sum(results)), float(len(results)))
        return out

    def example(self, name: str, text: str, answer: str) -> Example:
        """Make an item of a prompt and its rules in JSON; many completions are right, so there is none."""
        message = {"role": "user", "content": text}
        return Example(id=name, messages=(message,), answer=answer, meta={"rules": json.loads(answer)})

    def draw(self, rng: np.random.Generator) -> tuple[str, str]:
        """Draw one prompt, and its rules in JSON."""
        requests = _requests(self.path, self.prompt_column)
        request = requests[int(rng.integers(len(requests)))]
        rules = self._rules(rng)
        told = " ".join(KINDS[rule["kind"]].say.format(**rule) for rule in rules)
        return f"{request}\n\n{told}", json.dumps(rules)

    def _rules(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Draw rules that claim different sides of the answer, in the order of `KINDS`: no set has two texts."""
        wanted = int(rng.integers(self.min_rules, self.max_rules + 1))
        names = self.kinds or tuple(KINDS)
        chosen: list[str] = []
        taken: frozenset[str] = frozenset()
        for name in (names[int(i)] for i in rng.permutation(len(names))):
            if len(chosen) < wanted and not taken & KINDS[name].claims:
                chosen.append(name)
                taken |= KINDS[name].claims
        return [{"kind": name} | KINDS[name].draw(rng) for name in KINDS if name in chosen]


def _variants(text: str) -> list[str]:
    lines = text.split("\n")
    cut = ["\n".join(part).strip() for part in (lines, lines[1:], lines[:-1], lines[1:-1])]
    return [*cut, *(t.replace("*", "") for t in cut)]


@functools.lru_cache(maxsize=8)
def _requests(path: str, column: str) -> tuple[str, ...]:
    """Read the requests, kept since every item is drawn from them."""
    return tuple(row.read(lambda r: text_of(r[column], f"column {column!r}")) for row in load(path, columns=[column]))
