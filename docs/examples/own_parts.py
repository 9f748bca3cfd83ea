"""A task, an objective and a teacher of one's own in one file; the quickstart's student learns from them in a minute.

The teacher is no model but a rule: it knows how a sum is worked out, and expects the next character of that.
"""

import itertools
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
from opd.teaching import Pupil, Scorer
from opd.tensors import Completions, Tokens
from opd.types import Example, Judgement, Rollout, Split

NOTHING = -100.0
"""Log-prob of what is not expected at all."""


@dataclass(frozen=True)
class Additions:
    """Sums of four digits up to 20, with their working: `2+3+4+1:` is answered by `2+3=5;5+4=9;9+1=10`."""

    held_out: int = 200

    def examples(self, split: Split) -> Sequence[Example]:
        """The items of a split, in an order that is always the same; no item is in both."""
        items = [digits for digits in itertools.product(range(10), repeat=4) if sum(digits) <= 20]
        random.Random(0).shuffle(items)
        return [example(digits) for digits in (items[: self.held_out] if split == "eval" else items[self.held_out :])]

    def verify(self, item: Example, text: str) -> float:
        """Give 1 where what comes last is the sum."""
        return float(text.rpartition("=")[2] == item.answer)


def example(digits: Sequence[int]) -> Example:
    """One item, with its working as the completion."""
    name, totals = "+".join(map(str, digits)), list(itertools.accumulate(digits))
    working = ";".join(f"{a}+{b}={c}" for a, b, c in zip(totals, digits[1:], totals[1:], strict=False))
    return Example(name, ({"role": "user", "content": f"{name}:"},), answer=str(totals[-1]), completion=working)


@dataclass(frozen=True)
class Rule:
    """Settings of the teacher that is a rule: how sure it is."""

    sure: float = 0.98

    @property
    def provides(self) -> Provides:
        """Log-probs of the sampled tokens, and the one token that it expects."""
        return Provides(logprobs=True, top_k=1)

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
        """Judge every token of every rollout: what was expected there, and how sure the rule is of it."""
        return [self.judge(r) for r in rollouts]

    def judge(self, rollout: Rollout) -> Judgement:
        """Expect the working's next token; after a mistake agree with whatever the student does."""
        right = [*self.tokenizer(rollout.prompt.example.completion)["input_ids"], self.tokenizer.eos_token_id]
        wrong = math.log((1 - self.sure) / (self.size - 1))
        logprobs, expected, sure = list(rollout.logprobs), list(rollout.tokens), [NOTHING] * len(rollout.tokens)
        for place, (token, best) in enumerate(zip(rollout.tokens, right, strict=False)):
            expected[place], sure[place] = best, math.log(self.sure)
            logprobs[place] = math.log(self.sure) if token == best else wrong
            if token != best:
                break
        ids, values = torch.tensor(expected, dtype=torch.int64), torch.tensor(sure, dtype=torch.float32)
        return Judgement(torch.tensor(logprobs, dtype=torch.float32), None, ids[:, None], values[:, None])


@dataclass(frozen=True)
class Corrected:
    """Cross entropy with what the teacher expected at every place of the student's own completions, as in DAgger."""

    @property
    def needs(self) -> Needs:
        """The teacher's likeliest token."""
        return Needs(top_k=1)

    def advantages(self, completions: Completions) -> Tensor:
        """None: the loss itself is differentiated."""
        return torch.zeros_like(completions.behavior_logprobs)

    def loss(self, tokens: Tokens) -> Tensor:
        """Loss of each token, [N]: `-q log pi` of the expected one."""
        assert tokens.top_ids is not None
        assert tokens.top_logprobs is not None
        expected = tokens.logits.log_softmax(-1).gather(-1, tokens.top_ids)[:, 0]
        return -tokens.top_logprobs[:, 0].exp() * expected


if __name__ == "__main__":
    data: Data = opd.compose("quickstart").config.data
    own = {"objective": Corrected(), "teacher": Rule(), "data": replace(data, tasks={"additions": Additions()})}
    run = opd.train(opd.compose("quickstart", "steps=30", "eval.size=200", "log.exact_kl=false", *sys.argv[1:], **own))
    print(run.evaluations.frame()[["name", "eval/accuracy", "eval/kl"]].to_string(index=False))
