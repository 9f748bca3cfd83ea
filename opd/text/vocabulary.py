"""Do two tokenizers mean the same by the same ids? Compared on their real maps, not on `vocab_size`."""

from __future__ import annotations

from typing import Any

from opd.types import UserError

FEW = 16
"""Tokens that the student alone may know in a small vocabulary; in a large one it is one in a hundred."""


def unknown_ids(tokenizer: Any) -> frozenset[int]:
    """The ids that stand for whatever a tokenizer does not know; none where it spells everything by bytes."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    named = tokenizer.get_vocab().get(getattr(model, "unk_token", None))
    return frozenset(i for i in (tokenizer.unk_token_id, named) if i is not None)


def check_shared(student: Any, teacher: Any) -> list[str]:
    """Refuse a teacher that reads the student's ids as other tokens; return what differs without harm.

    Tokens that only one side knows do no harm as long as their ids mean nothing else on the other side: they are the
    padding rows and added tokens of sibling models (Qwen2.5 and Qwen3, 151936 and 152064 rows).

    Raises:
        UserError: an id stands for different tokens, a token has different ids, or too many are the student's alone.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return []
    ids = {i: t for t, i in theirs.items()}
    clashes = [(t, i, ids[i]) for t, i in ours.items() if i in ids and ids[i] != t]
    moved = [(t, i, theirs[t]) for t, i in ours.items() if t in theirs and theirs[t] != i]
    if clashes or moved:
        t, i, other = min(clashes, key=lambda c: c[1]) if clashes else min(moved, key=lambda c: c[1])
        raise UserError(
            f"student and teacher do not share a vocabulary: {len(clashes) or len(moved)} of {len(ours)} ids differ, "
            f"the first is {i} ({t!r} for the student, {other!r} for the teacher); choose a "
            "teacher of its family, or teacher=cross objective=gold"
        )
    only_student, only_teacher = len(ours.keys() - theirs.keys()), len(theirs.keys() - ours.keys())
    if only_student > max(FEW, len(ours) // 100):
        raise UserError(
            f"student and teacher do not share a vocabulary: {only_student} of {len(ours)} tokens are the student's "
            "alone, of which this teacher can say nothing; choose one of its family, or teacher=cross objective=gold"
        )
    return [
        f"{only_student} tokens only the student knows and {only_teacher} only the teacher: left out of the comparison"
    ]
