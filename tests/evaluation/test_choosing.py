"""Answers picked by log-prob, and texts that are predicted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from opd.commands.eval.measure import AsTeacher, title
from opd.config.compose import load
from opd.data.prompts import Data
from opd.evaluation.choosing import GIVEN, Chooser
from opd.evaluation.evaluate import evaluate, likelihood
from opd.protocols import Choosing
from opd.tasks.arithmetic import Arithmetic
from opd.tasks.multiple_choice import MultipleChoice
from opd.tasks.text import Passages
from opd.types import Example, Prompt, Sampling
from tests.sources.desks import STOP, TableEngine
from tests.tiny import char_tokenizer

TOKENIZER = char_tokenizer()
SIZE = len(TOKENIZER)
SAMPLING = Sampling(max_tokens=5, n=2, stop=(STOP,))


def engine(seed: int = 0) -> TableEngine:
    return TableEngine(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text, add_special_tokens=False))


def task(tmp_path: Path, cls, rows, **settings):
    (tmp_path / f"{cls.__name__}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return cls(path=str(tmp_path / f"{cls.__name__}.jsonl"), eval_fraction=1, **settings)


@pytest.fixture
def tasks(tmp_path: Path):
    questions = [{"question": f"{i}+1=", "choices": ["12", "3", "45"], "answer": i % 3} for i in range(6)]
    passages = [{"text": f"{i}+1= 1+2=3"} for i in range(6)]
    return {
        "choice": task(tmp_path, MultipleChoice, questions, letters=False),
        "text": task(tmp_path, Passages, passages, lead=1),
        "sums": Arithmetic(),
    }


def prompts(tasks, names) -> list[Prompt]:
    data = Data(tasks=tasks, template="plain").start(TOKENIZER, 0, train=False)
    found = data.eval_prompts(6)
    return [p for name in names for p in found if p.example.task == name]


def chooser(tasks, model: TableEngine) -> Chooser:
    return Chooser(model, model, lambda example: tasks[example.task], TOKENIZER)


def test_the_likeliest_choice_is_picked_as_the_engine_scores_it(tasks) -> None:
    model = engine()
    for rollout in chooser(tasks, model).sample(prompts(tasks, ["choice"]), SAMPLING):
        pairs = [(rollout.prompt.tokens, ids(choice)) for choice in ("12", "3", "45")]
        sums = [sum(row) for row in model.logprobs(pairs)]
        best = int(np.argmax(sums))
        assert rollout.tokens == pairs[best][1]
        assert sum(rollout.logprobs) == pytest.approx(sums[best])
        assert rollout.reward == float(best == rollout.prompt.example.meta["place"])
        assert (rollout.origin, any(rollout.mask), rollout.truncated) == (GIVEN, False, False)


def test_other_tasks_are_written_as_ever_and_all_stay_in_order(tasks) -> None:
    model = engine()
    mixed = prompts(tasks, ["sums", "choice", "text"])[::-1]
    made = chooser(tasks, model).sample(mixed, SAMPLING)
    assert [r.prompt for r in made] == [p for p in mixed for _ in range(2)]
    sums = [p for p in mixed if p.example.task == "sums"]
    assert [r for r in made if r.origin != GIVEN] == model.sample(sums, SAMPLING)


def test_a_text_is_cut_at_max_tokens_and_an_empty_one_has_no_token(tasks) -> None:
    made = chooser(tasks, engine()).sample(prompts(tasks, ["text"]), SAMPLING)
    assert all(r.tokens == ids(" 1+2=3")[:5] and r.truncated and r.reward is None for r in made)
    empty = Prompt(Example("e", ({"role": "user", "content": "1"},), task="text"), ids("1"))
    (rollout, _) = chooser(tasks, engine()).sample([empty], SAMPLING)
    assert (rollout.tokens, rollout.logprobs, rollout.truncated) == ((), (), False)


def test_perplexity_is_the_exponential_of_the_mean_cost_of_a_token(tasks) -> None:
    even = TableEngine(np.zeros((SIZE, SIZE)))
    found = likelihood(chooser(tasks, even).sample(prompts(tasks, ["text"]), SAMPLING), TOKENIZER)
    assert found["eval/perplexity"] == pytest.approx(SIZE)
    assert found["eval/bits_per_byte"] == pytest.approx(math.log2(SIZE))  # every token here is one byte
    assert likelihood([], TOKENIZER) == {}


def test_an_evaluation_has_accuracy_for_choices_and_perplexity_for_texts(tasks) -> None:
    cfg = load("quickstart", ["eval.size=6", "eval.n=2"]).config
    for name, figure in (("choice", "eval/accuracy"), ("text", "eval/perplexity")):
        assert isinstance(tasks[name], Choosing)
        data = Data(tasks={name: tasks[name]}, template="plain").start(TOKENIZER, 0, train=False)
        result = evaluate(engine(), None, data, TOKENIZER, cfg, (STOP,))
        assert result.metrics["eval/count"] == 12
        assert {"eval/accuracy", "eval/perplexity"} & set(result.metrics) == {figure}
        assert not any("nan" in str(value) for value in result.metrics.values())


def test_a_teacher_picks_by_what_it_reads(tasks) -> None:
    class Reader:
        def read(self, prompts):
            return [(*ids("9"), *p.tokens[:-1], *ids("3")) for p in prompts]

    model = engine()
    asked = prompts(tasks, ["choice"])
    made = AsTeacher(chooser(tasks, model), Reader()).sample(asked, SAMPLING)  # type: ignore[arg-type]
    assert [r.prompt for r in made] == [p for p in asked for _ in range(2)]
    for rollout in made:
        (row,) = model.logprobs([(ids("3"), rollout.tokens)])  # the table goes by the last token alone
        assert rollout.logprobs == pytest.approx(row)


def test_a_table_of_evaluations_says_samples_only_where_some_are_drawn() -> None:
    assert title(12, 0) == "12 held-out prompts"
    assert title(1, 1) == "1 held-out prompt, 1 sample each"
    assert title(2, 4) == "2 held-out prompts, 4 samples each"
