"""Answers that are picked by their log-probs, where a task gives those to choose from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from opd.protocols import Choosing, Task
from opd.text.verdict import verdict
from opd.types import Example, Prompt, Rollout, Sampling
from opd.writing import Sampler, Writer

GIVEN = "given"
"""Origin of completions that no model wrote."""


@dataclass(frozen=True)
class Chooser:
    """Writes as `writer` does, except where the task of a prompt is `Choosing`: there `engine` scores the choices."""

    engine: Sampler
    writer: Writer
    task: Callable[[Example], Task]
    tokenizer: Any

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Complete every prompt `n` times; what is picked is the same each time.

        Its rollouts have the engine's log-probs at temperature 1 and no trained token: the policy did not write them.
        Choices are cut at `max_tokens`.
        """
        asked = [isinstance(self.task(p.example), Choosing) for p in prompts]
        free = [p for p, choose in zip(prompts, asked, strict=True) if not choose]
        given = [p for p, choose in zip(prompts, asked, strict=True) if choose]
        written = iter(self.writer.sample(free, sampling) if free else ())
        picked = iter(self._pick(given, sampling.max_tokens) if given else ())
        return [r for choose in asked for r in self._next(picked, written, choose, sampling.n)]

    def _next(self, picked: Any, written: Any, choose: bool, n: int) -> list[Rollout]:
        return [next(picked)] * n if choose else [next(written) for _ in range(n)]

    def _pick(self, prompts: Sequence[Prompt], longest: int) -> list[Rollout]:
        """Score all choices of all prompts at once, and let the tasks pick."""
        texts = [list(self._choosing(p).choices(p.example)) for p in prompts]
        ids = [[self.tokenizer.encode(text, add_special_tokens=False) for text in row] for row in texts]
        pairs = [(p.tokens, one[:longest]) for p, row in zip(prompts, ids, strict=True) for one in row]
        scored = iter(self.engine.logprobs([pair for pair in pairs if pair[1]]))
        out = []
        for prompt, choices, row in zip(prompts, texts, ids, strict=True):
            logprobs = [next(scored) if one else [] for one in row]
            place = self._choosing(prompt).pick(prompt.example, [math.fsum(values) for values in logprobs])
            tokens, cut = tuple(row[place][:longest]), len(row[place]) > longest
            score = verdict(self.task(prompt.example), prompt.example, choices[place])
            out.append(
                Rollout(
                    prompt, tokens, tuple(logprobs[place]), truncated=cut, origin=GIVEN, writers=(),
                    trained=(False,) * len(tokens), reward=score,
                )
            )  # fmt: skip
        return out

    def _choosing(self, prompt: Prompt) -> Choosing:
        task = self.task(prompt.example)
        assert isinstance(task, Choosing)
        return task
