"""A task, an objective and a teacher of one's own in one file; the quickstart's student learns from them in a minute.

The teacher is no model but a rule: it knows how a sum is worked out, and expects the next character of that.
"""

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import opd
from opd.data.prompts import Data
from opd.needs import Needs, Provides
from opd.protocols import Pupil, Scorer
from opd.types import Completions, Example, Judgement, Rollout, Split, Tokens


@dataclass(frozen=True)
class ShortSums:
    """Sums of three digits, with their working: `2+3+4:` is answered by `2+3=5;5+4=9`."""

    size: int = 1000

    def examples(self, split: Split) -> Sequence[Example]:
        """Draw the items of a split: those of `eval` are left out of `train`."""
        items = [(a, b, c) for a in range(10) for b in range(10) for c in range(10)]
        random.Random(0).shuffle(items)
        chosen = items[:200] if split == "eval" else items[200 : 200 + self.size]
        return [example(*numbers) for numbers in chosen]

    def verify(self, item: Example, text: str) -> float:
        """Give 1 where what comes last is the sum."""
        return float(text.rpartition("=")[2] == item.answer)


def example(a: int, b: int, c: int) -> Example:
    """One item, with its working as the completion."""
    question = ({"role": "user", "content": f"{a}+{b}+{c}:"},)
    working = f"{a}+{b}={a + b};{a + b}+{c}={a + b + c}"
    return Example(f"{a}+{b}+{c}", question, answer=str(a + b + c), completion=working)


@dataclass(frozen=True)
class Rule:
    """Settings of the teacher that is a rule: how sure it is."""

    sure: float = 0.98

    @property
    def provides(self) -> Provides:
        """Log-probs of the sampled tokens."""
        return Provides(logprobs=True)

    def checkpoint(self) -> None:
        """There is no model to sample."""

    def start(self, pupil: Pupil) -> Scorer:
        """Take the student's tokenizer along."""
        return RuleScorer(pupil.tokenizer, pupil.size, self.sure)


@dataclass
class RuleScorer(Scorer):
    """A started rule."""

    tokenizer: Any
    size: int
    sure: float

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every token of every rollout."""
        return [Judgement(torch.tensor(self.logprobs(r), dtype=torch.float32)) for r in rollouts]

    def logprobs(self, rollout: Rollout) -> list[float]:
        """Expect the working's next token as long as it was followed, and the end of the answer after a mistake."""
        end = self.tokenizer.eos_token_id
        right = [*self.tokenizer(rollout.prompt.example.completion)["input_ids"], end]
        out = []
        for place, token in enumerate(rollout.tokens):
            followed = place < len(right) and tuple(right[:place]) == rollout.tokens[:place]
            expected = right[place] if followed else end
            out.append(math.log(self.sure if token == expected else (1 - self.sure) / (self.size - 1)))
        return out


@dataclass(frozen=True)
class Squared:
    """`(log pi - log q)^2 / 2` of each sampled token: its expected gradient is that of the reverse KL."""

    cap: float = 4.0
    """Nats beyond which a token counts no more."""

    @property
    def needs(self) -> Needs:
        """The teacher's log-probs of tokens that the student wrote."""
        return Needs(logprobs=True, policy=True)

    def advantages(self, completions: Completions) -> Tensor:
        """None: the loss itself is differentiated."""
        return torch.zeros_like(completions.behavior_logprobs)

    def loss(self, tokens: Tokens) -> Tensor:
        """Loss of each token, [N]."""
        gap = tokens.logprobs - tokens.teacher_logprobs
        return gap.detach().clamp(-self.cap, self.cap) * gap


if __name__ == "__main__":
    data: Data = opd.compose("quickstart").config.data
    own = {"objective": Squared(), "teacher": Rule(), "data": replace(data, tasks={"short": ShortSums()})}
    run = opd.train(opd.compose("quickstart", "steps=40", "eval.size=200", "log.exact_kl=false", *sys.argv[1:], **own))
    print(run.evaluations.frame()[["name", "eval/accuracy", "eval/kl"]].to_string(index=False))
