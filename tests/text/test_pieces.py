"""The bytes of a token are those that a text with it has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from opd.models.tiny import character_tokenizer
from opd.text.pieces import continuation, piece_bytes, shared_tokens, token_texts
from opd.types import UserError
from tests.tiny import char_tokenizer
from tests.tokenizers import CODE, SCRIPTS, SPECIAL, byte_level, gemma, metaspace, sentencepiece, smollm2

KINDS = {
    "byte level": byte_level(),
    "sentencepiece": sentencepiece(),
    "sentencepiece with a space in front": sentencepiece(prefix=True),
}
TEXTS = [*SCRIPTS.values(), CODE, " space in front", "  two", "", "\n\n", "<b>bold", "1+1=2"]


def spelt(tokenizer: Any, text: str) -> bytes:
    return b"".join(continuation(tokenizer, piece_bytes(tokenizer), text)[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_of_a_text_are_its_bytes(kind: str, text: str) -> None:
    assert spelt(KINDS[kind], text) == text.encode()


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=30))
def test_the_pieces_of_any_text_are_its_bytes(text: str) -> None:
    if any(token in text for token in SPECIAL):
        return
    for tokenizer in KINDS.values():
        assert spelt(tokenizer, text) == text.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_is_valid_text_decodes_to_its_piece(kind: str) -> None:
    tokenizer = KINDS[kind]
    for i, piece in enumerate(piece_bytes(tokenizer)):
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            continue
        if piece and not (kind.endswith("front") and text.startswith(" ")):  # which decoding alone strips
            assert tokenizer.decode([i]) == text


@pytest.mark.parametrize("tokenizer", [*KINDS.values(), metaspace()])
def test_special_tokens_spell_nothing_and_added_text_spells_itself(tokenizer: Any) -> None:
    pieces, ids = piece_bytes(tokenizer), tokenizer.get_vocab()
    assert {pieces[ids[token]] for token in SPECIAL} == {b""}
    assert (pieces[ids["\n\n"]], pieces[ids["<b>"]]) == (b"\n\n", b"<b>")


def test_unigram_pieces_have_their_spaces() -> None:
    assert continuation(metaspace(), piece_bytes(metaspace()), "the the")[1] == [b"the", b" the"]


@pytest.mark.parametrize("tokenizer", [char_tokenizer(), character_tokenizer("0123456789+=", [("1", "2")])])
def test_characters_spell_themselves(tokenizer: Any) -> None:
    pieces = piece_bytes(tokenizer)
    assert spelt(tokenizer, "12+3=") == b"12+3="
    assert pieces[tokenizer.eos_token_id] == pieces[tokenizer.pad_token_id] == b""


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), decoders.BPEDecoder(), decoders.CTC(), None])
def test_a_kind_that_is_not_known_is_refused(decoder: Any) -> None:
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    if decoder is not None:
        backend.decoder = decoder
    with pytest.raises(UserError, match=r"not known here; known are ByteFallback, ByteLevel.*Strip$"):
        piece_bytes(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_of_two_tokens_with_the_same_bytes_the_one_that_texts_get_is_shared() -> None:
    ours, theirs = byte_level(), sentencepiece()
    same = shared_tokens(ours, piece_bytes(ours), theirs, piece_bytes(theirs))
    mine, other = ours.get_vocab(), theirs.get_vocab()
    assert same[mine["a"]] == other["a"] != other["<0x61>"]
    assert same[mine["Ĥ"]] == other["<0x82>"]  # half a character: a byte alone
    assert len(set(same.values())) == len(same)


@pytest.mark.slow
@pytest.mark.parametrize("load", [smollm2, gemma])
def test_real_pieces_are_the_bytes_of_texts_and_what_single_tokens_decode_to(load: Any) -> None:
    tokenizer = load()
    pieces = piece_bytes(tokenizer)
    for text in TEXTS:
        assert b"".join(continuation(tokenizer, pieces, text)[1]) == text.encode()
    for i, piece in enumerate(pieces):
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            continue
        assert not piece or tokenizer.decode([i]) == text


@pytest.mark.slow
def test_most_of_smollm2s_vocabulary_is_in_gemmas() -> None:
    ours, theirs = smollm2(), gemma()
    same = shared_tokens(ours, piece_bytes(ours), theirs, piece_bytes(theirs))
    assert 0.93 < len(same) / len(ours) < 0.95
    assert all(ours.decode([i]) == theirs.decode([j]) for i, j in list(same.items())[::97])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_tokens_are_their_bytes_the_names_of_special_ones_and_the_numbers_of_unknown_ones(kind: str) -> None:
    tokenizer = KINDS[kind]
    ids = tokenizer("one \u2603", add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(tokenizer, ids)).lstrip() == r"one \xe2\x98\x83"
    special = tokenizer.convert_tokens_to_ids(list(SPECIAL))
    assert token_texts(tokenizer, special) == list(SPECIAL)
    assert token_texts(tokenizer, [10**6]) == ["[1000000]"]


def test_a_tokenizer_that_cannot_be_spelt_out_decodes_its_tokens() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    assert token_texts(PreTrainedTokenizerFast(tokenizer_object=backend), [0]) == ["a"]
