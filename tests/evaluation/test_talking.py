"""A task that answers is evaluated in as many turns as it is trained in, wherever in a source that is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opd.config.compose import load
from opd.devices.team import Solo
from opd.evaluation.evaluate import writer
from opd.evaluation.talking import Talking
from opd.objectives import SFT
from opd.sources.by_task import ByTask
from opd.sources.dataset import DatasetSource
from opd.sources.filtered import Filtered
from opd.sources.mixed import Mixed
from opd.sources.multi_turn import MultiTurn
from opd.sources.parts import turns_of
from opd.sources.student import StudentSource
from opd.types import Sampling
from tests.sources.desks import STOP, Talkative, make_desk, tables
from tests.sources.test_dataset import prompts
from tests.tiny import char_tokenizer

HALF = Mixed(parts={"a": MultiTurn(3), "b": DatasetSource()}, shares={"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("source", "turns"),
    [
        (StudentSource(), {"x": 1, "y": 1}),
        (MultiTurn(2), {"x": 2, "y": 2}),
        (HALF, {"x": 3, "y": 3}),
        (Filtered(source=HALF), {"x": 3, "y": 3}),
        (replace(HALF, shares={"a": 0, "b": 1}), {"x": 1, "y": 1}),
        (ByTask(tasks={"x": HALF}, others=StudentSource()), {"x": 3, "y": 1}),
        (Filtered(source=ByTask(tasks={"x": StudentSource()}, others=MultiTurn(5))), {"x": 1, "y": 5}),
    ],
)
def test_as_many_turns_as_in_training(source: Any, turns: dict[str, int], config: Path) -> None:
    assert {task: turns_of(source, task) for task in turns} == turns
    cfg, tokenizer = replace(load(str(config)).config, source=source, objective=SFT()), char_tokenizer()
    data = cfg.data.start(tokenizer, 0, train=False)
    found = writer(cfg, tables()[0], data, tokenizer, Solo())
    assert isinstance(found.writer, Talking)
    assert {task: found.writer.turns(task) for task in turns} == turns
    always = replace(cfg, eval=replace(cfg.eval, max_turns=4))
    assert writer(always, tables()[0], data, tokenizer, Solo()).writer.turns("x") == 4


def test_conversations_are_held_with_the_tasks_that_have_them_in_training_alone() -> None:
    asked = [replace(p, example=replace(p.example, task="xy"[i % 2])) for i, p in enumerate(prompts(6))]
    desk = replace(make_desk(tables()[0]), task=lambda example: Talkative())
    drawn = Sampling(max_tokens=40, n=2, stop=(STOP,), seed=3)
    made = Talking(desk, {"x": 3, "y": 1}.__getitem__).sample(asked, drawn)
    assert [r.prompt for r in made] == [p for p in asked for _ in range(2)]
    assert {r.prompt.example.task for r in made if not all(r.mask)} == {"x"}
    for turns, alone in ((1, desk.engine), (3, MultiTurn(3).start(desk))):
        assert Talking(desk, lambda task, turns=turns: turns).sample(asked, drawn) == alone.sample(asked, drawn)
