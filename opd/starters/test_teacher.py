"""The teacher on a text whose counts can be done by hand."""

import math
from pathlib import Path

import opd
from opd.needs import Needs
from opd.starters.teacher import Starter
from opd.teaching import Pupil
from opd.types import Example, Prompt, Rollout

YAML = Path(__file__).with_name("teacher.yaml")


def tokenizer(text: str) -> dict[str, list[int]]:
    """Letters as numbers."""
    return {"input_ids": [ord(letter) - ord("a") for letter in text]}


def test_a_token_is_as_likely_as_it_was_counted() -> None:
    scorer = Starter(text="abac", smooth=1.0).start(Pupil(tokenizer, size=3))
    prompt = Prompt(Example("0", ({"role": "user", "content": "a"},)), tokens=(0,))
    rollouts = [Rollout(prompt, tokens=(1, 0, 0), logprobs=(-1.0,) * 3, truncated=True), Rollout(prompt, (), (), True)]
    judged, empty = scorer.score(rollouts, Needs(logprobs=True))
    expected = [math.log(p) for p in (2 / 5, 2 / 4, 1 / 5)]  # b behind a, a behind b, a behind a
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(judged.logprobs.tolist(), expected, strict=True))
    assert empty.logprobs.tolist() == []


def test_the_yaml_is_a_config_of_it() -> None:
    assert opd.compose("quickstart", f'teacher="{YAML}"').config.teacher == Starter()
