"""The task: what it asks, and what it takes for right."""

from pathlib import Path

import opd
from opd.starters.task import Starter

YAML = Path(__file__).with_name("task.yaml")


def test_no_item_is_both_trained_and_evaluated_on() -> None:
    train, held_out = ({e.id for e in Starter().examples(split)} for split in ("train", "eval"))
    assert train
    assert held_out
    assert not train & held_out


def test_the_sum_at_the_end_is_right_and_another_is_not() -> None:
    example = next(e for e in Starter().examples("train") if e.id == "1+2+3+4")
    assert [Starter().verify(example, text) for text in ("1+2=3;3+3=6;6+4=10", "10", "=11", "")] == [1, 1, 0, 0]


def test_the_yaml_is_a_config_of_it() -> None:
    assert list(opd.compose("quickstart", f'data="{YAML}"').config.data.tasks.values()) == [Starter()]
