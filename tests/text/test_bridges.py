"""For any words, in every family: prompt, answer and bridge are what the table has of its own words."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opd.models.loading import call_end, turn_end
from opd.text.chat import completion_ids, render, reply_ids
from tests.text.families import FAMILIES, Family

WORDS = st.text(st.sampled_from("aé東 .\n<>{}/'\"\\"), min_size=1, max_size=12).filter(lambda t: t.strip() == t)
family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)


@cache
def tokenizer_of(family: Family) -> tuple[Any, tuple[int, ...]]:
    tokenizer = family.tokenizer()
    found = (*tokenizer.convert_tokens_to_ids(list(family.stop)), turn_end(tokenizer), call_end(tokenizer))
    return tokenizer, tuple(i for i in found if i is not None)


@family
@settings(max_examples=8, deadline=None)
@given(asked=WORDS, said=WORDS, then=WORDS)
def test_words_are_written_once_and_nothing_of_a_turn_depends_on_its_words(
    family: Family, asked: str, said: str, then: str
) -> None:
    tokenizer, stop = tokenizer_of(family)
    how: dict[str, Any] = {"template_kwargs": dict(family.kwargs)}
    hi, reply = [{"role": "user", "content": asked}], [{"role": "user", "content": then}]
    prompt = render(tokenizer, hi, **how)
    answer = completion_ids(tokenizer, hi, said, prompt, stop, **how)
    bridge = reply_ids(tokenizer, hi, reply, stop, last=answer[-1], **how)
    assert [i in stop for i in answer] == [False] * (len(answer) - 1) + [True]
    # the table's own words in their places: the rest of each is what was checked by hand
    assert tokenizer.decode(prompt) == re.sub(r"\bhi\b", lambda _: asked, family.prompt)
    assert tokenizer.decode(answer) == family.plain.replace("yes", said)
    assert tokenizer.decode(bridge) == family.reply.replace("and?", then)


@family
@settings(max_examples=5, deadline=None)
@given(turns=st.lists(WORDS, min_size=1, max_size=3))
def test_a_bridge_is_the_same_however_long_the_conversation_is(family: Family, turns: list[str]) -> None:
    tokenizer, stop = tokenizer_of(family)
    hi, reply = [{"role": "user", "content": "hi"}], [{"role": "user", "content": "and?"}]
    longer = hi + [t for words in turns for t in ({"role": "assistant", "content": words}, *reply)]
    how: dict[str, Any] = {"last": stop[0], "template_kwargs": dict(family.kwargs)}
    assert reply_ids(tokenizer, longer, reply, stop, **how) == reply_ids(tokenizer, hi, reply, stop, **how)
