"""Groups of tokens of two tokenizers that spell the same bytes."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import accumulate

Span = tuple[list[int], list[int]]
"""Indices of the student's tokens and of the teacher's."""


def align_spans(student_pieces: Sequence[bytes], teacher_pieces: Sequence[bytes]) -> list[Span]:
    """Group the tokens of both sides by equal byte spans: the smallest groups whose bytes are the same.

    Args:
        student_pieces: the bytes of each of the student's tokens; empty for one that spells nothing.
        teacher_pieces: the same for the teacher's; both must spell the same bytes.

    Returns:
        Indices into both, in order; every token is in exactly one group.

    Raises:
        ValueError: the two do not spell the same bytes.
    """
    if b"".join(student_pieces) != b"".join(teacher_pieces):
        raise ValueError("the two token sequences do not spell the same bytes")
    spans: list[Span] = []
    left: list[int] = []
    right: list[int] = []
    i = j = ahead = 0  # `ahead`: bytes the student's side of the open span has more than the teacher's
    while i < len(student_pieces) or j < len(teacher_pieces):
        if (ahead <= 0 and i < len(student_pieces)) or j >= len(teacher_pieces):
            left.append(i)
            ahead += len(student_pieces[i])
            i += 1
        else:
            right.append(j)
            ahead -= len(teacher_pieces[j])
            j += 1
        if ahead == 0 and left and right:
            spans.append((left, right))
            left, right = [], []
    if left or right:  # tokens without bytes at the very end belong to the last span
        if not spans:
            return [(left, right)]
        spans[-1] = (spans[-1][0] + left, spans[-1][1] + right)
    return spans


def whole_characters(pieces: Sequence[bytes]) -> tuple[int, str]:
    """How many of the pieces, from the first on, end with a whole character, and the text that these spell.

    The rest begins with half a character, or is no UTF-8: a completion may have been cut inside a character.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    kept, text, open_text = 0, "", ""
    for i, piece in enumerate(pieces):
        try:
            open_text += decoder.decode(piece)
        except UnicodeDecodeError:
            break
        if not decoder.getstate()[0]:
            kept, text = i + 1, open_text
    return kept, text


def same_bytes(ours: Sequence[bytes], theirs: Sequence[bytes]) -> tuple[int, int]:
    """How many pieces of both sides spell the same bytes, from the first on.

    All of them, but for a tokenizer that changes the text it reads (Unicode normalisation, or a mark for spaces that
    the text itself contains): then up to the last place before the first difference where pieces of both end.
    """
    a, b = b"".join(ours), b"".join(theirs)
    if a == b:
        return len(ours), len(theirs)
    same = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    ends = [{n: i for i, n in enumerate(accumulate(map(len, side), initial=0))} for side in (ours, theirs)]
    last = max(n for n in ends[0].keys() & ends[1].keys() if n <= same)
    return ends[0][last], ends[1][last]
