"""What vLLM is asked for the log-probs of a prompt, and what is made of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opd.teachers.local import FLOOR
from opd.teachers.said import Completion, Row, read
from opd.types import Judgement, UserError

COMPLETIONS = "/v1/completions"
CERTAIN = 1.01
"""More probability than all tokens together have, rounding included."""


def ask(model: str, tokens: Sequence[int], top_k: int) -> dict[str, Any]:
    """Body of a request for the log-probs of `tokens`; vLLM cannot but write one token after them."""
    return {
        "model": model,
        "prompt": list(tokens),
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": top_k,
    }


def rows_of(answer: bytes, length: int) -> list[Row]:
    """The positions of a prompt of `length` tokens, of which the first has no log-prob and is null.

    Raises:
        UserError: the answer is another.
    """
    rows = read(Completion, answer).choices[0].prompt_logprobs or []
    found = [row or {} for row in rows]
    if len(found) != length or not all(found[1:]):
        raise UserError(
            "teacher.url: the server's answer lacks prompt_logprobs; allowed is vLLM's server in a version that gives "
            "them:  opd serve-teacher MODEL"
        )
    return found


def judgement(rows: Sequence[Row], tokens: Sequence[int], known: int, size: int, top_k: int) -> Judgement:
    """Judge T completion tokens by their rows.

    Args:
        rows: T positions.
        tokens: what the student wrote, T ids.
        known: ids from here on are none of the teacher's tokens; they get FLOOR.
        size: columns of the student's head; likeliest tokens beyond it are replaced, see `likeliest`.
        top_k: how many likeliest tokens to give.

    Raises:
        UserError: there are too few, or together they are likelier than certain.
    """
    import torch

    values = [logprob(row, t) if t < known else FLOOR for row, t in zip(rows, tokens, strict=True)]
    if not top_k:
        return Judgement(torch.tensor(values))
    best = [likeliest(row, size, top_k) for row in rows]
    ids = torch.tensor([[i for i, _ in pairs] for pairs in best], dtype=torch.int64)
    tops = torch.tensor([[v for _, v in pairs] for pairs in best])
    if (mass := float(tops.exp().sum(-1).max())) > CERTAIN:
        raise UserError(
            f"teacher.url: the server gives likeliest tokens with {mass:.3g} of probability together: it gives logits, "
            "not log-probs; start it with --logprobs-mode raw_logprobs, as opd serve-teacher does"
        )
    return Judgement(torch.tensor(values), None, ids, tops)


def logprob(row: Row, token: int) -> float:
    """Log-prob of a token that a position must have."""
    if token not in row:
        raise UserError(f"teacher.url: the server gives token {token} no log-prob; check the served model")
    return min(max(row[token].logprob, FLOOR), 0.0)  # for minus infinity vLLM says -9999


def likeliest(row: Row, size: int, k: int) -> list[tuple[int, float]]:
    """The k likeliest tokens of a position and their log-probs, likeliest first.

    The student has no column for ids from `size` on (padding rows of a larger sibling): the first ids that are free
    stand in for them, at FLOOR, so that the rest is right.
    """
    known = sorted(((i, logprob(row, i)) for i in row), key=lambda pair: -pair[1])[:k]
    if len(known) < k:
        raise UserError(f"teacher.url: the server gives {len(known)} of the {k} likeliest tokens that were asked for")
    kept = [(i, v) for i, v in known if i < size]
    taken = {i for i, _ in kept}
    free = (i for i in range(size) if i not in taken)
    return [*kept, *((next(free), FLOOR) for _ in range(k - len(kept)))]
