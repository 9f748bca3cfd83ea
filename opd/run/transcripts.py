"""A step's rollouts as a run keeps them: one parquet file a step, one row a completion, readable without a model.

The tokens' own texts are written too, and those of what the teacher would rather have said, where it was asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from opd.disk import whole, writing
from opd.needs import ALTERNATIVES
from opd.parquet import read_parquet
from opd.text.chat import decode
from opd.types import UserError

if TYPE_CHECKING:
    from opd.types import Scored

T = TypeVar("T")
Texts = Callable[[Sequence[int]], list[str]]
"""What each of some token ids spells."""


@dataclass(frozen=True)
class Token:
    """One token of a completion, and what the models said of it."""

    text: str
    logprob: float
    """`log mu`, natural log; NaN where the student's policy did not write it."""
    teacher_logprob: float
    """`log q`; NaN where the teacher has nothing to say."""
    trained: bool
    alternatives: tuple[tuple[str, float], ...] = ()
    """The teacher's likeliest tokens there with their log-probs, likeliest first; empty where it was not asked."""

    @property
    def disagreement(self) -> float:
        """`log mu - log q` in nats, above 0 where the teacher finds the token less likely; NaN where not trained."""
        return self.logprob - self.teacher_logprob if self.trained else math.nan


@dataclass(frozen=True)
class Transcript:
    """One completion."""

    id: str
    """Of the example: completions of one prompt share it."""
    prompt: str
    completion: str
    reward: float | None
    truncated: bool
    origin: str
    tokens: tuple[Token, ...]


def step_file(folder: Path, step: int) -> Path:
    """Where a step's rollouts lie."""
    return folder / f"step_{step:06d}.parquet"


def recorded_steps(folder: Path) -> list[int]:
    """The steps that there are files of, in order."""
    names = [p.stem.removeprefix("step_") for p in folder.glob("step_*.parquet")]
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def write_transcripts(folder: Path, step: int, scored: Sequence[Scored], tokenizer: Any, texts: Texts) -> None:
    """Write a step's rollouts; `texts` spells token ids. Who reads along sees the whole file or none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([_row(s, tokenizer, texts) for s in scored], schema=_schema())
    with writing(folder):
        folder.mkdir(exist_ok=True)
    with whole(step_file(folder, step)) as part:
        pq.write_table(table, part)


def _schema() -> Any:
    import pyarrow as pa

    def several(kind: Any) -> Any:
        return pa.list_(kind)

    text, ids, values = pa.string(), several(pa.int64()), several(pa.float64())
    columns = {
        "id": text, "prompt": text, "completion": text, "reward": pa.float64(), "truncated": pa.bool_(),
        "version": pa.int64(), "origin": text, "prompt_tokens": ids, "tokens": ids, "texts": several(text),
        "logprobs": values, "trained": several(pa.bool_()), "teacher_logprobs": values,
        "teacher_top": several(several(text)), "teacher_top_logprobs": several(several(pa.float32())),
    }  # fmt: skip
    return pa.schema(list(columns.items()))


def _row(s: Scored, tokenizer: Any, texts: Texts) -> dict[str, Any]:
    rollout, judged = s.rollout, s.teacher
    top_ids, top_logprobs = judged.top_ids, judged.top_logprobs
    return {
        "id": rollout.prompt.example.id,
        "prompt": rollout.prompt.example.messages[-1]["content"],
        "completion": decode(tokenizer, rollout.tokens, special=True),
        "reward": s.reward,
        "truncated": rollout.truncated,
        "version": rollout.version,
        "origin": rollout.origin,
        "prompt_tokens": list(rollout.prompt.tokens),
        "tokens": list(rollout.tokens),
        "texts": texts(rollout.tokens),
        "logprobs": list(rollout.logprobs),
        "trained": list(rollout.mask),
        "teacher_logprobs": judged.logprobs.tolist(),
        "teacher_top": None if top_ids is None else _told(top_ids[:, :ALTERNATIVES].tolist(), texts),
        "teacher_top_logprobs": None if top_logprobs is None else top_logprobs[:, :ALTERNATIVES].tolist(),
    }


def _told(ids: list[list[int]], texts: Texts) -> list[list[str]]:
    """Texts of rows of equal length, spelt in one call."""
    flat = iter(texts([i for row in ids for i in row]))
    return [list(islice(flat, len(row))) for row in ids]


def read_transcripts(folder: Path, step: int) -> list[Transcript]:
    """What `write_transcripts` wrote; files of an earlier version have ids for texts, and no alternatives.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    return _read(folder, step, _transcript)


def read_rows(folder: Path, step: int) -> list[dict[str, Any]]:
    """The same as plain rows, all of their columns.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    return _read(folder, step, dict)


def _read(folder: Path, step: int, make: Callable[[dict[str, Any]], T]) -> list[T]:
    import pyarrow as pa

    path = step_file(folder, step)
    try:
        found, known = read_parquet(path), _schema()
        for i, name in enumerate(found.column_names):
            if name in known.names:  # an earlier version's are as they are, if they mean the same
                found = found.set_column(i, name, found[name].cast(known.field(name).type))
        return [make(row) for row in found.to_pylist()]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        why = f"there is no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not the rollouts of a step ({why}); delete it") from error


def _transcript(row: dict[str, Any]) -> Transcript:
    texts = row.get("texts") or [f"[{i}]" for i in row["tokens"]]
    nothing: list[list[Any]] = [[]] * len(texts)
    tops, values = row.get("teacher_top") or nothing, row.get("teacher_top_logprobs") or nothing
    told = [tuple(zip(names, numbers, strict=True)) for names, numbers in zip(tops, values, strict=True)]
    columns = (texts, row["logprobs"], row["teacher_logprobs"], row["trained"], told)
    return Transcript(
        row["id"], row["prompt"], row["completion"], row["reward"], row["truncated"], row["origin"],
        tuple(Token(*values) for values in zip(*columns, strict=True)),
    )  # fmt: skip
