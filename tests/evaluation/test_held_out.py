"""Held-out prompts of which there are too few are told, task by task."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opd.config.compose import load
from opd.config.settings import Config
from opd.evaluation.held_out import asked, too_few


@pytest.fixture(scope="module")
def config() -> Config:
    rows = "{_target_: opd.tasks.text.Prompts, path: rows.jsonl}"
    made = "{_target_: opd.tasks.arithmetic.Arithmetic}"
    return load("quickstart", [f"data.tasks={{a: {rows}, b: {made}}}", "data.weights=null"]).config


def of(config: Config, size: int) -> Config:
    return replace(config, eval=replace(config.eval, size=size))


def test_a_task_with_too_few_held_out_prompts_is_told_with_what_they_say_and_the_setting(config: Config) -> None:
    (said,) = too_few(of(config, 200), {"a": 2, "b": 100})
    assert said.startswith("data.tasks.a: only 2 prompts are held out, ")
    assert "(an accuracy of 50% would be anything from 9% to 91%)" in said
    assert "raise data.tasks.a.eval_fraction, or name others by data.tasks.a.eval_path" in said
    (said,) = too_few(of(config, 200), {"a": 100, "b": 1})
    assert said.startswith("data.tasks.b: only 1 prompt is held out, ")
    assert said.endswith("give the task more of them"), "it is none over rows"


@pytest.mark.parametrize(("size", "there"), [(200, (30, 100)), (200, (100, 100)), (6, (3, 3)), (1, (1, 0))])
def test_enough_prompts_and_as_many_as_were_asked_for_are_no_warning(
    config: Config, size: int, there: tuple[int, int]
) -> None:
    assert list(too_few(of(config, size), dict(zip("ab", there, strict=True)))) == []


def test_what_will_be_evaluated_is_what_there_is(config: Config) -> None:
    said = {n: asked(of(config, 200), n and {"a": n}) for n in (200, 40, 1)}
    assert said[200] == "200 prompts x 1"
    assert said[40] == "40 prompts x 1 (eval.size=200, and no more are held out)"
    assert said[1].startswith("1 prompt x 1 (")
    assert asked(of(config, 200), None) == "at most 200 prompts x 1"
