"""Generators of reasoning-gym."""

import re
import sys

import pytest

from opd.extras import install
from opd.protocols import Task
from opd.tasks.gym import ReasoningGym
from opd.types import UserError

pytest.importorskip("reasoning_gym")


@pytest.mark.parametrize("name", ["chain_sum", "letter_counting", "leg_counting"])
def test_the_scorer_accepts_the_answer_and_refuses_another(name: str) -> None:
    task = ReasoningGym(name=name)
    assert isinstance(task, Task)
    for example in task.examples("train")[:10]:
        assert task.verify(example, f"I think <answer>{example.answer}</answer>") == 1.0
        assert task.verify(example, f" {example.answer}\n") == 1.0
        assert task.verify(example, "<answer>no idea</answer>") < 0.5


def test_no_problem_is_in_both_splits_even_where_there_are_few() -> None:
    task = ReasoningGym(name="chain_sum", params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    held_out = {e.messages[0]["content"] for e in task.examples("eval")}
    assert len(held_out) == len(task.examples("eval"))
    assert not held_out & {e.messages[0]["content"] for e in task.examples("train")[:300]}


def test_a_space_that_eval_exhausts_is_refused() -> None:
    tiny = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = ReasoningGym(name="chain_sum", params=tiny, size=50, eval_size=5000)
    with pytest.raises(UserError, match="makes no problem that is not in eval"):
        task.examples("train")[0]


def test_items_are_the_same_in_every_session() -> None:
    first, again = (ReasoningGym(name="chain_sum", seed=4).examples("train")[10] for _ in range(2))
    assert first == again
    assert first.messages != ReasoningGym(name="chain_sum", seed=5).examples("train")[10].messages


def test_an_unknown_generator_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no generator 'chain_sums' in reasoning-gym, did you mean chain_sum\?"):
        ReasoningGym(name="chain_sums").examples("train")


def test_unknown_params_are_named() -> None:
    with pytest.raises(UserError, match=r"does not suit generator 'chain_sum'.*max_term"):
        ReasoningGym(name="chain_sum", params={"max_term": 3}).examples("train")
    with pytest.raises(ValueError, match="set seed of the task itself"):
        ReasoningGym(name="chain_sum", params={"seed": 3})


def test_a_missing_library_gives_the_install_line(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(UserError, match=re.escape(install("tasks"))):
        ReasoningGym(name="chain_sum", seed=99).examples("train")
