"""Text as it is written: every character once, and none before it is whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from opd.text.chat import decode
from opd.text.speech import Speech, pieces
from tests.tiny import char_tokenizer
from tests.tokenizers import byte_level, metaspace, sentencepiece

TEXTS = ["", "plain words", "日本語 and 🙂 and é", "ends in half 🙂"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("made", [byte_level, sentencepiece, partial(sentencepiece, prefix=True), metaspace])
def test_what_is_said_is_the_text_and_never_half_a_character(text: str, made: Callable[[], Any]) -> None:
    tokenizer = made()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if text.startswith("ends"):
        ids = ids[:-1]
    speech = Speech(tokenizer)
    said = [speech.add(i) for i in ids]
    assert not any("\ufffd" in part for part in said)
    assert "".join(said) + speech.rest() == decode(tokenizer, ids)


def test_a_character_of_several_tokens_is_one_piece_with_the_worst_of_them() -> None:
    tokenizer = byte_level()
    ids = tokenizer("a🙂")["input_ids"]
    assert len(ids) > 2
    values = [0.0, *(float(i) for i in range(1, len(ids)))]
    assert pieces(tokenizer, ids, values) == (("a", 0.0), ("🙂", len(ids) - 1.0))


def test_a_special_token_has_its_name_and_what_is_not_judged_no_value() -> None:
    (one, end) = pieces(char_tokenizer(), [2, 1], [math.nan, 0.5])
    assert one[0] == "0"
    assert math.isnan(one[1])
    assert end == ("<eos>", 0.5)
