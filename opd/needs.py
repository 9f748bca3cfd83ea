"""What an objective asks for, and what teachers and sources give."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

HINTS = {
    "logprobs": "log-probs of one vocabulary (teacher=local, server, self_base, ...)",
    "distribution": "the teacher's distribution (teacher=local or self_base, ...)",
    "top_k": "the teacher's {top_k} likeliest tokens (teacher=local, or teacher.top_k={top_k})",
    "student_top_k": "what the teacher says of the student's {student_top_k} likeliest tokens (teacher=local; or "
    "teacher=server with teacher.top_k={student_top_k})",
    "spans": "byte spans of another tokenizer (teacher=cross)",
    "reference": "a second model (+teacher@reference=local reference.model=...)",
    "rewards": "a task with a verifier",
    "groups": "several samples a prompt (sampling.n=4)",
    "policy": "completions that the student writes (source=student, multi_turn or teacher_mixed)",
    "current": "a learner that reads its samples once more before it trains on them (any run)",
    "entropy": "a learner that reads its samples once more before it trains on them (any run)",
    "origins": "parts of the source named {origins} (source=mixed or by_task)",
}
"""What each need is, and what gives it."""


ALTERNATIVES = 5
"""Likeliest tokens of the teacher that are kept of every token, for people to see."""


@dataclass(frozen=True)
class _Kinds:
    """What can be asked for and given."""

    logprobs: bool = False
    """The teacher's log-probs of the sampled tokens."""
    distribution: bool = False
    """The teacher's whole distribution at every token."""
    top_k: int = 0
    """The teacher's so many likeliest tokens, with their log-probs; of what is given, the most."""
    student_top_k: int = 0
    """The teacher's log-probs of the student's so many likeliest tokens; who has a distribution gives that instead."""
    spans: bool = False
    """Log-probs of byte spans, of a teacher with another tokenizer."""
    reference: bool = False
    """Log-probs of the second model, `reference` in the config."""
    rewards: bool = False
    """The verifier's score of every completion."""
    groups: bool = False
    """Several samples of each prompt."""
    policy: bool = False
    """Tokens that the student wrote, with their log mu: what a policy gradient is taken on."""
    current: bool = False
    """Log-probs of whole completions under the weights that are trained, before the step: a forward pass more."""
    entropy: bool = False
    """The entropy of the student that is trained at every token: of the same pass as `current`, asked for with it."""
    origins: frozenset[str] = frozenset()
    """Parts of the source by name."""

    def __or__(self, other: Self) -> Self:
        """What is in either."""
        most = {f.name: max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return type(self)(**most | {"origins": self.origins | other.origins})


@dataclass(frozen=True)
class Provides(_Kinds):
    """What a part of a run can give: its teacher, its source, or the run itself."""


@dataclass(frozen=True)
class Needs(_Kinds):
    """What an objective asks for, and what a teacher is asked for with it.

    What nothing in a run provides is known before any weight is read.
    """

    def __str__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        special = {
            "top_k": f"top_k={self.top_k}",
            "student_top_k": f"student_top_k={self.student_top_k}",
            "origins": f"parts of the source named {', '.join(sorted(self.origins))}",
        }
        return ", ".join(special.get(k, k) for k, v in values.items() if v) or "nothing"

    @property
    def columns(self) -> bool:
        """Whether distributions are compared column by column, over one vocabulary."""
        return bool(self.distribution or self.student_top_k) and not self.spans

    def lacking(self, provided: Provides) -> str:
        """Name what is asked for and not provided, and what gives it; empty where all is there."""
        if provided.distribution:  # any token's log-prob is in it
            provided = replace(provided, student_top_k=self.student_top_k)

        def over(name: str) -> Any:
            value, there = getattr(self, name), getattr(provided, name)
            if isinstance(value, frozenset):
                return value - there
            return value if value > there else type(value)()

        missing = Needs(**{f.name: over(f.name) for f in fields(self)})
        found = [f"{HINTS[f.name]}" for f in fields(self) if getattr(missing, f.name)]
        return "; ".join(found).format(
            top_k=self.top_k, student_top_k=self.student_top_k, origins=", ".join(sorted(missing.origins))
        )
