"""A teacher, a source, an objective and a task of the user's own: each is one file and one YAML, and nothing else."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from opd.run.metrics import read_metrics
from tests.tiny import cli_code

MODULES = {
    "mine_teacher": '''
"""Which letter follows which in a text: a teacher without a network."""
from dataclasses import dataclass
from itertools import pairwise

import torch

from opd.needs import Provides
from opd.teaching import Scorer
from opd.types import Judgement


@dataclass(frozen=True)
class LetterTeacher:
    """Settings: the text that is counted."""

    text: str

    @property
    def provides(self):
        return Provides(logprobs=True)

    def checkpoint(self):
        return None  # no engine could sample it

    def start(self, pupil):
        counts = torch.ones(pupil.size, pupil.size)
        for before, after in pairwise(pupil.tokenizer(self.text)["input_ids"]):
            counts[before, after] += 1
        return LetterScorer((counts / counts.sum(1, keepdim=True)).log())


@dataclass(frozen=True)
class LetterScorer(Scorer):
    """Started: log-probs [V, V] of a token after another."""

    table: torch.Tensor

    def score(self, rollouts, needs):
        prompts = self.read([r.prompt for r in rollouts])
        before = [[*ids[-1:], *r.tokens[:-1]][: len(r.tokens)] for ids, r in zip(prompts, rollouts)]
        return [Judgement(self.table[b, list(r.tokens)]) for b, r in zip(before, rollouts)]
''',
    "mine_source": '''
"""Demonstrations among the student's own samples: the first one of every prompt is the data's."""
from dataclasses import dataclass, replace

from opd.writing import Desk
from opd.types import Rollout


@dataclass(frozen=True)
class Shown:
    """No settings; `sampling.n` has to be 2 or more."""

    policy = False
    origins = frozenset({"student", "shown"})

    def start(self, desk):
        return ShownWriter(desk)


@dataclass(frozen=True)
class ShownWriter:
    desk: Desk

    def sample(self, prompts, sampling):
        own = iter(self.desk.engine.sample(prompts, replace(sampling, n=sampling.n - 1)))
        return [r for p in prompts for r in (self.shown(p, sampling), *(next(own) for _ in range(sampling.n - 1)))]

    def shown(self, prompt, sampling):
        ids = self.desk.tokenizer(prompt.example.completion)["input_ids"] + list(sampling.stop[:1])
        tokens = tuple(ids[: sampling.max_tokens])
        unknown = (float("nan"),) * len(tokens)
        return Rollout(prompt, tokens, unknown, len(ids) > sampling.max_tokens, origin="shown", writers=())
''',
    "mine_objective": '''
"""Likelihood of those tokens that the teacher believes in."""
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from opd.needs import Needs


@dataclass(frozen=True)
class Believed:
    """Each token weighs `q(y_t) ** power`, the teacher's probability of it."""

    power: Annotated[float, Field(gt=0)] = 1.0

    @property
    def needs(self):
        return Needs(logprobs=True)

    def advantages(self, completions):
        return (self.power * completions.teacher_logprobs).exp() * completions.mask

    def loss(self, tokens):
        return -tokens.advantages * tokens.logprobs
''',
    "mine_task": '''
"""Letters to be said backwards."""
import random
from dataclasses import dataclass

from opd.types import Example


@dataclass(frozen=True)
class Backwards:
    """So many words for training, and a quarter as many others for evaluation."""

    letters: int = 3
    size: int = 64

    def examples(self, split):
        words = random.Random(0).sample(range(26**self.letters), self.size + self.size // 4)
        chosen = words[: self.size] if split == "train" else words[self.size :]
        return [self.example(number) for number in chosen]

    def example(self, number):
        word = "".join(chr(97 + number // 26**i % 26) for i in range(self.letters))
        return Example(word, ({"role": "user", "content": word},), answer=word[::-1], completion=word[::-1])

    def verify(self, example, text):
        return float(text.strip() == example.answer)
''',
}
CONFIGS = {
    "teacher/mine.yaml": "_target_: mine_teacher.LetterTeacher\ntext: abc cba abc\n",
    "source/mine.yaml": "_target_: mine_source.Shown\n",
    "objective/mine.yaml": "_target_: mine_objective.Believed\npower: 0.5\n",
    "data/mine.yaml": """
tasks:
  backwards: {_target_: mine_task.Backwards, letters: 3}
prompts_per_step: 8
max_prompt_tokens: 16
""",
}
MINE = ["teacher=mine", "source=mine", "objective=mine", "data=mine"]
SHORT = ["-q", "steps=2", "eval.every=0", "eval.size=2"]
PROMPTS, SHOWN, PROMPT = 8, 4, 4
"""A step's prompts; tokens of a demonstration, EOS included, and of a prompt, with a colon behind it."""


@pytest.fixture
def mine(config: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a config, and with parts of one's own beside it; the config's name."""
    for name, text in {**{f"{m}.py": t for m, t in MODULES.items()}, **CONFIGS}.items():
        path = config.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(config.parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in MODULES:  # set and taken away, so that what is imported meanwhile is gone in the end
        monkeypatch.setitem(sys.modules, name, sys)
        del sys.modules[name]
    return config.name


def trained(config: str, *settings: str) -> dict[str, float]:
    assert cli_code(["train", f"conf={config}", "run=run", *SHORT, *settings]) == 0
    return read_metrics(Path("run/metrics.jsonl"))[-1]


def test_four_parts_of_ones_own_train_together_and_are_counted(mine: str) -> None:
    last = trained(mine, *MINE)
    cost = {k.removeprefix("cost/"): v for k, v in last.items()}
    for name in ("optim/loss", "optim/grad_norm", "kl/sampled", "rollout/reward"):
        assert math.isfinite(last[name]), name
    steps, shown = 2, 2 * PROMPTS * SHOWN
    assert cost["generate_prompt_tokens"] == steps * PROMPTS * PROMPT  # the student's one of the two samples
    assert cost["update_prompt_tokens"] == cost["score_prompt_tokens"] == 2 * steps * PROMPTS * PROMPT
    assert cost["update_tokens"] == cost["score_tokens"] == cost["generate_tokens"] + shown
    assert 0 < cost["generate_flops_student"] < cost["update_flops_forward"]
    assert cost["generate_flops_teacher"] == 0  # it wrote nothing
    assert math.isnan(cost["score_flops_teacher"])  # it has no network to count


@pytest.mark.parametrize("part", MINE)
def test_each_part_of_ones_own_goes_with_the_shipped_ones(mine: str, part: str) -> None:
    assert math.isfinite(trained(mine, part, *(["objective=sft"] if part == "source=mine" else []))["optim/loss"])


def test_an_objective_of_ones_own_is_refused_beside_a_teacher_that_does_not_give_what_it_needs(
    mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_code(["train", f"conf={mine}", "run=run", *SHORT, *MINE[1:], "teacher=none"]) == 2
    assert "objective=mine_objective.Believed: it needs log-probs" in capsys.readouterr().err
    assert cli_code(["train", f"conf={mine}", "run=run", *SHORT, "teacher=mine", "objective=gkd"]) == 2
    assert "LetterTeacher" in capsys.readouterr().err
    assert not Path("run").exists()
