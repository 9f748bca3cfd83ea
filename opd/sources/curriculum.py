"""Draws a prompt by how the student last did on it: those at the edge of what it can do more often than others.

    by reward   w(x) = max(least, p^alpha (1 - p)^beta / its maximum),   p: mean reward of the prompt's last samples
    by KL       w(x) = max(least, (k / mean k)^alpha),   k: mean log mu - log q a token of its last samples, at least 0
    unseen      w(x) = 1

Source: PACED, "Distillation and On-Policy Self-Distillation at the Frontier of Student Competence", 2026 (arXiv
2603.11178), which weighs each problem's loss by `p (1 - p)`, of the family `p^alpha (1 - p)^beta`, as the gradient's
signal to noise vanishes at both ends. Claim: up to 8.2 points above unweighted distillation on MATH-500 and AIME, and
less forgotten.

Left open, and chosen here. There p is of the student before training, and the loss is weighed; here it is the latest,
so that the curriculum follows the student, and how often a prompt is drawn is weighed, so that no sample is spent on
what counts little. Of `candidates` prompts, the data's own and others of the same task at random, one is taken with a
chance in proportion to its weight: for many candidates a draw by weight from all, for one the source without a
curriculum; no list of all prompts is needed. A prompt that was never seen weighs as much as the best of the others by
reward, and as the mean by KL. Where prompts hardly come again (tasks that make them up) nothing changes. Last figures
are of few samples, and a prompt may lie at an end by luck: `least` lets it come back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from opd.called import called
from opd.seeds import derive
from opd.sources.around import Around, AroundWriter
from opd.sources.parts import parts_of
from opd.types import Prompt, Rollout, Sampling, Scored
from opd.writing import Desk, Writer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Curriculum(Around):
    """Has another source write, of prompts that are drawn by how the student last did on them."""

    by: Literal["reward", "kl"] = "reward"
    """What a prompt goes by: its mean reward, or the sampled reverse KL of a token to the teacher."""
    candidates: Annotated[int, Field(ge=1, le=1000)] = 4
    """Prompts of which one is taken, each time; 1: the data's own."""
    alpha: Annotated[float, Field(ge=0, le=100)] = 1.0
    """The greater, the less is drawn of what is hardly ever right; of `kl`: of what is near the teacher."""
    beta: Annotated[float, Field(ge=0, le=100)] = 1.0
    """The greater, the less is drawn of what is nearly always right; of `kl` without meaning."""
    least: Annotated[float, Field(gt=0, le=1)] = 0.05
    """No prompt weighs less: what the student could or could not do may have changed."""

    def __post_init__(self) -> None:
        """Refuse what is no source, and one of which the student writes nothing."""
        super().__post_init__()
        if not any(getattr(part, "policy", False) for part in parts_of(self.source)):
            raise ValueError(
                f"source={called('source', self.source)}: the student writes none of it, and source=curriculum goes by "
                "how the student does; allowed is a source in which it writes, such as source=student"
            )

    @property
    def verifies(self) -> bool:
        """Whether it goes by what a task's verifier says."""
        return self.by == "reward"

    @property
    def needs_ends(self) -> bool:
        """Likewise, of the completions that are trained."""
        return self.by == "reward"

    @property
    def needs_teacher(self) -> bool:
        """Whether it goes by a teacher's log-probs of the student's tokens."""
        return self.by == "kl"

    @property
    def picks(self) -> bool:
        """Whether it takes other prompts than those that it is given."""
        return self.candidates > 1

    def start(self, desk: Desk) -> Writer:
        """Start who writes, and ask to be told what becomes of it."""
        writer = CurriculumWriter(self, self.source.start(desk), desk)
        desk.followers.append(writer)
        return writer


@dataclass(frozen=True)
class CurriculumWriter(AroundWriter):
    """A started source, and what is known of prompts."""

    settings: Curriculum
    known: dict[str, float] = field(default_factory=dict)
    """The latest figure of each example, by its id."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Write `n` completions of a prompt that is drawn in the place of each."""
        seed, others = derive(sampling.seed, "curriculum"), range(1, self.settings.candidates)
        chosen = []
        for i, prompt in enumerate(prompts):
            among = [prompt, *(self.desk.another(prompt, derive(seed, i, k)) for k in others)]
            weights = weigh(self.settings, [self.known.get(p.example.id) for p in among], self.known.values())
            chosen.append(among[pick(weights, derive(seed, i, 0))])
        return self.source.sample(chosen, sampling)

    def told(self, scored: Sequence[Scored]) -> dict[str, float]:
        """Note how the student did on each prompt of a step; how many are known, and the share that was before."""
        found: dict[str, list[Scored]] = {}
        for s in scored:
            if by_student(s.rollout):
                found.setdefault(s.rollout.prompt.example.id, []).append(s)
        seen = sum(name in self.known for name in found) / max(1, len(found))
        for name, group in found.items():
            values = divergences(group) if self.settings.by == "kl" else [s.reward for s in group]
            if numbers := [v for v in values if v is not None]:
                self.known[name] = fmean(numbers)
        return {"rollout/known": float(len(self.known)), "rollout/seen": seen}

    def state(self) -> dict[str, Tensor]:
        """Ids, as JSON in UTF-8, and their figures: tensors, for a run's checkpoints."""
        import torch

        ids = torch.from_numpy(np.frombuffer(json.dumps([*self.known]).encode(), np.uint8).copy())
        return {"ids": ids, "figures": torch.tensor([*self.known.values()], dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from it."""
        ids, figures = json.loads(state["ids"].numpy().tobytes()), state["figures"].tolist()
        self.known.clear()
        self.known.update(zip(ids, figures, strict=True))


def by_student(rollout: Rollout) -> bool:
    """Whether the student wrote it: now, or once, when it was kept with its log mu."""
    return "student" in rollout.writers or any(map(math.isfinite, rollout.logprobs))


def weigh(settings: Curriculum, figures: Sequence[float | None], known: Iterable[float]) -> list[float]:
    """Weights of prompts by their latest figures, of which None is of one that was never seen; `known`: all figures."""
    if settings.by == "kl":
        mean = fmean([max(0.0, k) for k in known] or [0.0])
        plain = [1.0 if k is None or not mean else (max(0.0, k) / mean) ** settings.alpha for k in figures]
    else:
        plain = [1.0 if p is None else frontier(p, settings.alpha, settings.beta) for p in figures]
    return [max(settings.least, w) for w in plain]


def frontier(p: float, alpha: float, beta: float) -> float:
    """`p^alpha (1 - p)^beta`, divided by its maximum over p in [0, 1]; 0^0 is 1."""
    p, both = min(1.0, max(0.0, p)), alpha + beta
    highest = (alpha / both) ** alpha * (beta / both) ** beta if both else 1.0
    value: float = p**alpha * (1 - p) ** beta / highest
    return value


def pick(weights: Sequence[float], seed: int) -> int:
    """One of several places, with a chance in proportion to its weight; of one alone the first."""
    ends = np.cumsum(weights)
    return int(np.searchsorted(ends[:-1], np.random.default_rng(seed).random() * ends[-1], side="right"))


def divergences(group: Sequence[Scored]) -> list[float]:
    """`log mu - log q` of the tokens of a prompt's samples; of those left out, too."""
    out = []
    for s in group:
        own = s.rollout.mask if any(s.rollout.mask) else (True,) * len(s.rollout.tokens)
        pairs = zip(s.rollout.logprobs, s.teacher.logprobs.tolist(), own, strict=True)
        out += [mu - q for mu, q, mine in pairs if mine and math.isfinite(mu - q)]
    return out
