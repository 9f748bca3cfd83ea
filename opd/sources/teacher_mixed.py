"""Student and teacher write together: `alpha*q + (1-alpha)*pi`, which keeps a weak student out of the mire.

Source: teacher-mixed sampling of Gu et al., "MiniLLM", ICLR 2024 (arXiv 2306.08543), section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from opd.seeds import derive
from opd.sources.teacher import as_read, known_to_student
from opd.types import Prompt, Rollout, Sampling, UserError
from opd.writing import Desk, Sampler, Writer

ORIGIN = "teacher_mixed"
BOTH: Final = ("student", "teacher")


@runtime_checkable
class MixingSampler(Protocol):
    """An engine that can draw every token from its own model and another engine's together."""

    def sample_mixed(
        self,
        other: Any,
        other_prompts: Sequence[Sequence[int]],
        alpha: float,
        prompts: Sequence[Prompt],
        sampling: Sampling,
    ) -> list[Rollout]:
        """Draw as `Sampler.sample` does, from `alpha` of the other and the rest of its own.

        `logprobs` are the mixture's, `policy_logprobs` its own model's; `other_prompts` are the ids that the other
        engine, one of the same kind, reads in place of each prompt.
        """
        ...


@dataclass(frozen=True)
class TeacherMixed:
    """Completions of a mixture of the two, with log mu of the mixture and log pi of the student beside it.

    Token by token where the engine can (`rollout=hf`): `mu(y_t | y_<t) = alpha*q + (1-alpha)*pi`. Otherwise by whole
    samples, for which the student or the teacher is chosen by `alpha`, and which a temperature of 1 is needed for.
    Either way `mu` is the exact distribution of what was drawn, so that weights pi/mu are on average 1.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The teacher's share."""

    policy = True
    lockstep = True
    origins = frozenset({ORIGIN})

    def start(self, desk: Desk) -> Writer:
        """Start the teacher's engine."""
        if isinstance(desk.engine, MixingSampler):
            return ByToken(self.alpha, desk, desk.engine, desk.teacher_engine())
        return BySample(self.alpha, desk, desk.teacher_engine())


@dataclass(frozen=True)
class ByToken:
    """Both models decode in lockstep."""

    alpha: float
    desk: Desk
    engine: MixingSampler
    teacher: Sampler

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `n` completions of each prompt."""
        shown = self.desk.read(prompts)
        drawn = self.engine.sample_mixed(self.teacher, shown, self.alpha, prompts, sampling)
        return [replace(r, origin=ORIGIN, writers=BOTH) for r in drawn]


@dataclass(frozen=True)
class BySample:
    """Every completion is written by one of the two, and its probability is that of either having written it."""

    alpha: float
    desk: Desk
    teacher: Sampler

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `n` completions of each prompt; UserError at a temperature other than 1."""
        if sampling.temperature != 1.0:
            raise UserError(
                f"sampling.temperature={sampling.temperature:g}: this engine mixes student and teacher by whole "
                "samples, whose probabilities it knows at 1 only; allowed is 1, or rollout=hf, which mixes by token"
            )
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        coins = np.random.default_rng(derive(sampling.seed, "who writes")).random(len(owners)) < self.alpha
        shown = as_read(self.desk.read, owners)
        rollouts = self._written(owners, shown, coins.tolist(), replace(sampling, n=1))
        log_pi = self._scores(self.desk.engine, owners, rollouts, (~coins).tolist())
        log_q = self._scores(self.teacher, shown, rollouts, coins.tolist())
        version = max((r.version for r in rollouts), default=0)  # the student's: a teacher's weights have seen no step
        return [
            replace(
                r,
                logprobs=sequence_mixture(pi, q, self.alpha),
                policy_logprobs=tuple(pi),
                version=version,
                origin=ORIGIN,
                writers=BOTH,
            )
            for r, pi, q in zip(rollouts, log_pi, log_q, strict=True)
        ]

    def _written(
        self, owners: Sequence[Prompt], shown: Sequence[Prompt], coins: Sequence[bool], sampling: Sampling
    ) -> list[Rollout]:
        """Let each of the two write its places."""
        out: dict[int, Rollout] = {}
        for engine, reads, teachers in ((self.desk.engine, owners, False), (self.teacher, shown, True)):
            places = [i for i, coin in enumerate(coins) if coin == teachers]
            seed = derive(sampling.seed, "teacher" if teachers else "student")
            drawn = engine.sample([reads[i] for i in places], replace(sampling, seed=seed)) if places else []
            out |= {
                i: replace(known_to_student(self.desk, r), prompt=owners[i]) for i, r in zip(places, drawn, strict=True)
            }
        return [out[i] for i in range(len(owners))]

    def _scores(
        self, engine: Sampler, reads: Sequence[Prompt], rollouts: Sequence[Rollout], own: Sequence[bool]
    ) -> list[Sequence[float]]:
        """One model's log-probs of every completion; those that it wrote itself have them already."""
        others = [i for i, mine in enumerate(own) if not mine and rollouts[i].tokens]
        asked = engine.logprobs([(reads[i].tokens, rollouts[i].tokens) for i in others]) if others else []
        scored: dict[int, Sequence[float]] = dict(zip(others, asked, strict=True))
        return [scored.get(i, r.logprobs) for i, r in enumerate(rollouts)]


def sequence_mixture(log_pi: Sequence[float], log_q: Sequence[float], alpha: float) -> tuple[float, ...]:
    """`log mu(y_t | y_<t)` of T tokens where a whole sequence is the teacher's with chance `alpha`, else the student's.

    `mu(y_t | y_<t) = (alpha*q(y_<=t) + (1-alpha)*pi(y_<=t)) / (alpha*q(y_<t) + (1-alpha)*pi(y_<t))`: by what has been
    written, one learns who writes.
    """
    shares = np.array([alpha, 1.0 - alpha])
    with np.errstate(divide="ignore"):  # log 0: that one never writes
        weights = np.log(shares)
    cumulative = np.cumsum(np.array([[0.0, *log_q], [0.0, *log_pi]], dtype=np.float64), axis=1) + weights[:, None]
    return tuple(np.diff(np.logaddexp(*cumulative)).tolist())
