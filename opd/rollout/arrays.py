"""Rollouts as plain arrays, for pipes and checkpoints; prompts are put back by who has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from opd.types import Prompt, Rollout

Arrays = Mapping[str, np.ndarray]


def rows_to_arrays(name: str, rows: Sequence[Sequence[Any] | None], dtype: type) -> dict[str, np.ndarray]:
    """Rows of numbers, of any lengths, as one flat array and their lengths (int64 [rows]); -1: None."""
    lengths = np.array([-1 if row is None else len(row) for row in rows], np.int64)
    given = sum(len(row) for row in rows if row is not None)
    flat: np.ndarray = np.fromiter(chain.from_iterable(row for row in rows if row is not None), dtype, given)
    return {name: flat, f"{name}.lengths": lengths}


def arrays_to_rows(name: str, arrays: Arrays) -> list[tuple[Any, ...] | None]:
    """The rows that `rows_to_arrays` was given, as tuples of Python's numbers."""
    flat: list[Any] = arrays[name].tolist()
    rows: list[tuple[Any, ...] | None] = []
    end = 0
    for length in arrays[f"{name}.lengths"].tolist():
        rows.append(None if length < 0 else tuple(flat[end : end + length]))
        end += max(0, length)
    return rows


def rollouts_to_arrays(rollouts: Sequence[Rollout]) -> dict[str, np.ndarray]:
    """All of them but their prompts, exactly: log-probs stay float64."""
    words = json.dumps([(r.origin, r.writers, r.tries, r.beside) for r in rollouts]).encode()
    return {
        **rows_to_arrays("tokens", [r.tokens for r in rollouts], np.int64),
        **rows_to_arrays("logprobs", [r.logprobs for r in rollouts], np.float64),
        **rows_to_arrays("policy", [r.policy_logprobs for r in rollouts], np.float64),
        **rows_to_arrays("trained", [r.trained for r in rollouts], np.bool_),
        **rows_to_arrays("reward", [None if r.reward is None else (r.reward,) for r in rollouts], np.float64),
        "truncated": np.array([r.truncated for r in rollouts], np.bool_),
        "version": np.array([r.version for r in rollouts], np.int64),
        "words": np.frombuffer(words, np.uint8).copy(),
    }


def arrays_to_rollouts(arrays: Arrays, prompts: Iterable[Prompt]) -> list[Rollout]:
    """The rollouts again, each with its prompt of `prompts`, the very object."""
    rewards = (None if row is None else row[0] for row in arrays_to_rows("reward", arrays))
    words = json.loads(arrays["words"].tobytes())
    columns = zip(
        prompts, arrays_to_rows("tokens", arrays), arrays_to_rows("logprobs", arrays), arrays["truncated"].tolist(),
        arrays["version"].tolist(), words, arrays_to_rows("trained", arrays), arrays_to_rows("policy", arrays), rewards,
        strict=True,
    )  # fmt: skip
    return [
        Rollout(
            prompt, tokens or (), logprobs or (), cut, version, origin, tuple(writers), trained, policy, reward,
            *_rest(*rest),
        )
        for prompt, tokens, logprobs, cut, version, (origin, writers, *rest), trained, policy, reward in columns
    ]  # fmt: skip


def _rest(tries: int = 0, beside: Sequence[Sequence[Any]] = ()) -> tuple[int, tuple[Any, ...]]:
    """What an earlier opd did not write."""
    return tries, tuple(map(tuple, beside))
