"""Spans cover every byte once, whatever the two tokenizations are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd.text.pieces import continuation, piece_bytes
from opd.text.spans import align_spans, same_bytes, whole_characters
from tests.tokenizers import CODE, SCRIPTS, byte_level, gemma, sentencepiece, smollm2


def check(ours: list[bytes], theirs: list[bytes]) -> None:
    """Every token of both is in exactly one span, in order; both sides of a span spell the same; none can be cut."""
    spans = align_spans(ours, theirs)
    assert [i for a, _ in spans for i in a] == list(range(len(ours)))
    assert [j for _, b in spans for j in b] == list(range(len(theirs)))
    for a, b in spans:
        left, right = [ours[i] for i in a], [theirs[j] for j in b]
        assert b"".join(left) == b"".join(right)
        cuts = [{len(b"".join(side[:n])) for n in range(1, len(side))} for side in (left, right)]
        assert not cuts[0] & cuts[1] - {0, len(b"".join(left))}


@st.composite
def two_splits(draw: Any) -> tuple[list[bytes], list[bytes]]:
    text = draw(st.binary(max_size=24))

    def split() -> list[bytes]:
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))  # twice the same: an empty piece
        return [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]

    return split(), split()


@given(two_splits())
def test_spans_cover_every_token_of_any_two_splits(splits: tuple[list[bytes], list[bytes]]) -> None:
    check(*splits)


@given(two_splits())
def test_the_same_pieces_are_spans_of_one_token_each(splits: tuple[list[bytes], list[bytes]]) -> None:
    pieces = [p for p in splits[0] if p]
    assert align_spans(pieces, pieces) == [([i], [i]) for i in range(len(pieces))]


def test_different_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not spell the same"):
        align_spans([b"a"], [b"b"])


@given(st.text(max_size=12), st.integers(0, 12), st.lists(st.integers(0, 48), max_size=8))
def test_what_is_kept_of_a_cut_text_ends_with_a_whole_character(text: str, cut: int, places: list[int]) -> None:
    data = text.encode("utf-8", "replace")[: -cut or None]
    cuts = sorted({min(p, len(data)) for p in places})
    pieces = [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]
    kept, found = whole_characters(pieces)
    assert b"".join(pieces[:kept]) == found.encode()
    for n in range(kept + 1, len(pieces) + 1):
        with pytest.raises(UnicodeDecodeError):
            b"".join(pieces[:n]).decode()


def test_nothing_behind_bytes_that_are_no_text_is_kept() -> None:
    assert whole_characters([b"a", b"\xe4\xbd", b"\xa0", b"\xff", b"b"]) == (3, "a你")


def test_where_a_tokenizer_changes_the_text_spans_end_before_the_change() -> None:
    assert same_bytes([b"ab", b"c", b"d"], [b"a", b"bc", b"d"]) == (3, 3)
    assert same_bytes([b"ab", b"c", b"d"], [b"a", b"bc", b"x"]) == (2, 2)
    assert same_bytes([b"ab", b"cd"], [b"a", b"bcx"]) == (0, 0)


def check_texts(ours: Any, theirs: Any, texts: Iterable[str]) -> None:
    left, right = piece_bytes(ours), piece_bytes(theirs)
    for text in texts:
        a, b = continuation(ours, left, text)[1], continuation(theirs, right, text)[1]
        check(a, b)
        assert b"".join(a) == text.encode()


@pytest.mark.parametrize("prefix", [False, True])
def test_spans_cover_every_byte_in_six_scripts(prefix: bool) -> None:
    check_texts(byte_level(), sentencepiece(prefix), [*SCRIPTS.values(), CODE])


@pytest.mark.slow
def test_spans_of_smollm2_and_gemma_cover_every_byte_in_six_scripts() -> None:
    check_texts(smollm2(), gemma(), [*SCRIPTS.values(), CODE])
    check_texts(gemma(), smollm2(), [*SCRIPTS.values(), CODE])
