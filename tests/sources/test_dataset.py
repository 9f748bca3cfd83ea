"""The dataset as the writer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from opd.sources.dataset import DatasetSource
from opd.tasks.arithmetic import Arithmetic
from opd.types import Example, Prompt, Sampling, UserError
from tests.sources.desks import STOP, make_desk, tables
from tests.tiny import char_tokenizer

SAMPLING = Sampling(max_tokens=40, stop=(STOP,))
TOKENIZER = char_tokenizer()


def prompts(count: int = 4) -> list[Prompt]:
    examples = Arithmetic().examples("train")[:count]
    return [Prompt(replace(e, task="sums"), tuple(TOKENIZER(e.messages[0]["content"])["input_ids"])) for e in examples]


def test_the_completion_is_the_datas_and_ends_with_the_stop_id() -> None:
    given = prompts()
    written = DatasetSource().start(make_desk(tables()[0])).sample(given, SAMPLING)
    for prompt, rollout in zip(given, written, strict=True):
        assert rollout.prompt is prompt
        assert TOKENIZER.decode(rollout.tokens[:-1]) == prompt.example.completion
        assert rollout.tokens[-1] == STOP
        assert not rollout.truncated
        assert (rollout.origin, rollout.writers) == ("dataset", ())
        assert all(map(math.isnan, rollout.logprobs))
        assert len(rollout.logprobs) == len(rollout.tokens)


def test_a_long_completion_is_cut_and_has_no_stop_id() -> None:
    written = DatasetSource().start(make_desk(tables()[0])).sample(prompts(), replace(SAMPLING, max_tokens=5))
    assert all(r.truncated and len(r.tokens) == 5 and STOP not in r.tokens for r in written)


def test_one_that_fits_exactly_is_not_cut() -> None:
    (prompt,) = prompts(1)
    room = len(prompt.example.completion) + 1
    (rollout,) = DatasetSource().start(make_desk(tables()[0])).sample([prompt], replace(SAMPLING, max_tokens=room))
    assert not rollout.truncated
    assert rollout.tokens[-1] == STOP


def test_samples_of_a_prompt_are_copies_and_stay_together() -> None:
    given = prompts(2)
    written = DatasetSource().start(make_desk(tables()[0])).sample(given, replace(SAMPLING, n=3))
    assert [r.prompt for r in written] == [p for p in given for _ in range(3)]
    assert len({r.tokens for r in written}) == 2


def test_a_prompt_without_a_completion_says_what_to_set() -> None:
    bare = Prompt(Example("chat/7", ({"role": "user", "content": "1+1"},), task="chat"), (3, 4))
    with pytest.raises(UserError, match=r"data\.tasks\.chat: example chat/7 .* data\.tasks\.chat\.completion_column"):
        DatasetSource().start(make_desk(tables()[0])).sample([bare], SAMPLING)


def test_it_is_no_policy() -> None:
    assert not DatasetSource().policy
