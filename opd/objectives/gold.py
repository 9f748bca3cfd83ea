"""Teachers with another tokenizer: which tokens of both sides spell the same bytes, and how far two rows are apart.

Sources: ULD, Boizard et al., 2024 (arXiv 2402.12030); GOLD, Hugging Face TRL, 2025.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def align_spans(student_pieces: Sequence[bytes], teacher_pieces: Sequence[bytes]) -> list[tuple[list[int], list[int]]]:
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
    spans: list[tuple[list[int], list[int]]] = []
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


def uld(student_probs: Sequence[Tensor] | Tensor, teacher_probs: Sequence[Tensor] | Tensor) -> Tensor:
    """Mean over rows of the L1 distance between two sorted distributions, the shorter one padded with zeros."""
    distances = []
    for p, q in zip(student_probs, teacher_probs, strict=True):
        size = max(p.shape[-1], q.shape[-1])
        a, b = (torch.nn.functional.pad(x.sort(descending=True).values, (0, size - x.shape[-1])) for x in (p, q))
        distances.append((a - b).abs().sum())
    return torch.stack(distances).mean()
