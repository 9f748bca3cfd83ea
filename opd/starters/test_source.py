"""The source with an engine that always writes the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import opd
from opd.starters.source import Starter
from opd.types import Example, Prompt, Rollout, Sampling
from opd.writing import Desk

YAML = Path(__file__).with_name("source.yaml")


class Engine:
    """Writes three tokens."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """`n` completions of each prompt."""
        return [Rollout(p, (5, 6, 7), (-1.0, -1.0, -1.0), False) for p in prompts for _ in range(sampling.n)]


def test_only_how_a_completion_begins_is_trained() -> None:
    engine: Any = Engine()
    prompts = [Prompt(Example(name, ({"role": "user", "content": name},)), tokens=(1, 2)) for name in "ab"]
    desk = Desk(
        engine, lambda: engine, read=lambda some: [p.tokens for p in some], tokenizer=None, task=lambda e: engine
    )
    written = Starter(tokens=2).start(desk).sample(prompts, Sampling(max_tokens=3, n=2))
    assert [r.prompt.example.id for r in written] == ["a", "a", "b", "b"]
    assert {r.mask for r in written} == {(True, True, False)}


def test_the_yaml_is_a_config_of_it() -> None:
    assert opd.compose("quickstart", f'source="{YAML}"').config.source == Starter()
