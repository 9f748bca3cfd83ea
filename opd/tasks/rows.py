"""What every task over rows shares: where they come from, which are held out, and how a row becomes an example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from opd.tasks.cells import text_of
from opd.tasks.files import Row, is_file, load
from opd.tasks.lazy import Lazy
from opd.tasks.placed import Placed
from opd.tasks.turns import Messages, closing_turns, completion_of, messages_of, tools_of
from opd.types import Example, Split, UserError


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Settings of a task whose items are rows; a task adds its columns, `answer` and `verify`."""

    path: str
    """A `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` file, a folder of them or of the `datasets` library, or a
    dataset's name on the hub. `pkg://` is followed by a package and a path within it."""
    subset: str | None = None
    """Configuration of a dataset that has several."""
    split: str = "train"
    """Split of the dataset to train on; files have none."""
    eval_path: str | None = None
    """Where the eval items are, if not in `path`."""
    eval_split: str | None = None
    """Split of the dataset to evaluate on; null keeps `eval_fraction` of the train rows for it."""
    eval_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of prompts held out where there is neither `eval_path` nor `eval_split`, chosen by the prompt's hash; 1:
    all of them, so that the task is there to evaluate on only."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Read only so many rows of `path`, from the first."""
    prompt_column: str = "prompt"
    """Column of the prompt: a text, or chat messages, whose closing assistant turns are the completion. Turns of `from`
    (human, gpt) and `value` are read as those of `role` and `content`; further fields go to the chat template."""
    tools_column: str = "tools"
    """Column of the tools that the chat template is to describe, where rows have it: a list, or that in JSON."""
    system_column: str = "system"
    """Column of a system turn's text, where rows have it; messages that begin with a system turn keep their own."""
    completion_column: str | None = None
    """Column of what the data answers, for sources that train on it: a text, or turns of the assistant. Null: the
    messages' closing assistant turns, or else what a task knows of its own columns."""
    suffix: str = ""
    """Text put after every prompt, such as how the answer is to be given."""
    meta_columns: tuple[str, ...] = ()
    """Columns that are carried along in an example's `meta`."""

    def __post_init__(self) -> None:
        """Refuse an eval split that is the train split, or one that a file cannot have."""
        if self.eval_path is None and self.eval_split == self.split:
            raise ValueError(f"eval_split: {self.eval_split!r} is the train split; name another, or set eval_fraction")
        if self.eval_split is not None and is_file(self.eval_path or self.path):
            raise ValueError(
                f"eval_split: {self.eval_split!r} cannot be had from a file; set eval_path to another file"
            )

    def columns(self) -> tuple[str, ...]:
        """Name the columns that must be there."""
        given = () if self.completion_column is None else (self.completion_column,)
        return (self.prompt_column, *given, *self.meta_columns)

    def messages(self, row: Row) -> Messages:
        """Read the prompt, with the suffix at its end."""
        *before, last = messages_of(row[self.prompt_column], self.at(self.prompt_column))
        if not before and not last["content"].strip():
            raise UserError(f"{self.at(self.prompt_column)}: this prompt is an empty text")
        return (*before, {**last, "content": last["content"] + self.suffix})

    def with_system(self, row: Row, messages: Messages) -> Messages:
        """Put the row's system turn, which tables have in a column of its own, before its messages.

        Raises:
            UserError: the messages have another.
        """
        cell, at = row.get(self.system_column), self.at(self.system_column)
        if cell is None or cell == "":
            return messages
        turn = {"role": "system", "content": text_of(cell, at)}
        if messages[0]["role"] != "system":
            return (turn, *messages)
        if messages[0] != turn:
            raise UserError(f"{at} and the system turn of {self.at(self.prompt_column)} differ; keep one of them")
        return messages

    def answer(self, row: Row) -> tuple[str, Mapping[str, Any]]:
        """Read what the verifier compares with, and what more it needs in `meta`; here there is nothing."""
        return "", {}

    def completion(self, row: Row) -> str:
        """Read what the data answers; empty where it does not."""
        turn = self.closing(row)
        return str(turn.get("content", "")) if turn or self.completion_column else self.solution(row)

    def solution(self, row: Row) -> str:
        """Read what a task knows of its own columns to answer with; here there is nothing."""
        return ""

    def closing(self, row: Row) -> Mapping[str, Any]:
        """Read the assistant's turn that the data gives: in its column, or at the end of the prompt's messages.

        Raises:
            UserError: it gives two.
        """
        closing = closing_turns(row[self.prompt_column], self.at(self.prompt_column))
        if self.completion_column is None:
            return closing
        asked = messages_of(row[self.prompt_column], self.at(self.prompt_column))
        given = completion_of(row[self.completion_column], self.at(self.completion_column), asked)
        if closing and closing != given:
            raise UserError(
                f"{self.at(self.prompt_column)} ends with an answer, and {self.at(self.completion_column)} is another; "
                "leave completion_column out, or take the answer out of the messages"
            )
        return given

    def taught(self, row: Row) -> str:
        """Name where a row has what `completion` reads, for people."""
        if self.completion_column is not None:
            return self.at(self.completion_column)
        if self.closing(row):
            return f"the closing turns of {self.at(self.prompt_column)}"
        own = getattr(self, "answer_column", None)
        return f"{self.at(own)} (no completion_column is named)" if own else self.at(self.prompt_column)

    def at(self, column: str) -> str:
        """Name a column in a message; where the row is, is put before it."""
        return f"column {column!r}"

    def examples(self, split: Split) -> Sequence[Example]:
        """Give the items of a split in the order of their rows; no prompt is in both splits.

        Raises:
            UserError: a file, split or column that is not there, or a cell that is no prompt.
        """
        if self.eval_path is None and self.eval_split is None:
            table = self.table(self.path, self.split, self.limit)
            return _Items(self, table, [i for i, key in enumerate(table.keys) if self._split_of(key) == split])
        held_out = self.table(self.eval_path or self.path, self.eval_split or self.split, None)
        if split == "eval":
            return _Items(self, held_out, range(len(held_out.keys)))
        table = self.table(self.path, self.split, self.limit)
        seen, size = set(held_out.keys), len(table.keys)
        keep = [i for i, key in enumerate(table.keys) if key not in seen]
        if twice := size - len(keep):
            said = f"{twice} of the {size} prompts of {self.path} are evaluated on too, and are not trained on"
            table = replace(table, note="; ".join(filter(None, (table.note, said))))
        return _Items(self, table, keep)

    def why_none(self, size: int) -> str:
        """Say by which setting none of `size` rows is left to train on, and what to do."""
        key = "eval_path" if self.eval_path else "eval_split" if self.eval_split else ""
        if not key:
            said = f"it holds out each of the {size} prompts of {self.path}; lower it"
            return f"eval_fraction={self.eval_fraction:g}: {said}"
        return (
            f"{key}={getattr(self, key)}: each of the {size} prompts of {self.path} is in it too, and what is "
            f"evaluated on is not trained on; name other rows, or leave {key} out: eval_fraction is then held out"
        )

    def table(self, path: str, split: str, limit: int | None) -> Table:
        """Read the rows that examples can be made of."""
        further = (self.tools_column, self.system_column)
        rows = load(path, columns=self.columns(), further=further, subset=self.subset, split=split, limit=limit)
        for setting, usual in (("tools_column", Rows.tools_column), ("system_column", Rows.system_column)):
            name = getattr(self, setting)
            if name != usual and not any(name in row for row in rows):
                raise UserError(f"{setting}: no row of {path} has a column {name!r}")
        return Table(rows, [row.read(self._key) for row in rows])

    def _key(self, row: Row) -> str:
        """Hash a row's prompt."""
        messages = messages_of(row[self.prompt_column], self.at(self.prompt_column))
        return hashlib.sha256(json.dumps(messages, default=str).encode()).hexdigest()

    def _split_of(self, key: str) -> Split:
        """Place a prompt by its hash alone, so that rows added to a file move none of the others."""
        return "eval" if int(key[:12], 16) < self.eval_fraction * 16**12 else "train"


@dataclass(frozen=True)
class Table:
    """Rows, and the hash of each one's prompt."""

    rows: Sequence[Placed]
    keys: Sequence[str]
    note: str = ""
    """What is to be told of rows that were left out."""


class _Items(Lazy[Example]):
    """Chosen rows of a table as examples, made on access."""

    def __init__(self, task: Rows, table: Table, keep: Sequence[int]) -> None:
        self.task, self.table, self.keep = task, table, keep
        self.note = table.note
        self.why_none = "" if keep else task.why_none(len(table.keys))
        self.ids = _unique(table.keys[i][:16] for i in keep)

    def __len__(self) -> int:
        return len(self.keep)

    @property
    def taught(self) -> str:
        """Where the first row has what the data answers, for sources that train on it."""
        return self.table.rows[self.keep[0]].read(self.task.taught)

    def item(self, index: int) -> Example:
        """Make an example of a row."""
        return self.table.rows[self.keep[index]].read(lambda row: self._example(self.ids[index], row))

    def _example(self, name: str, row: Placed) -> Example:
        task = self.task
        answer, meta = task.answer(row)
        return Example(
            id=name,
            messages=task.with_system(row, task.messages(row)),
            answer=answer,
            meta={name: row[name] for name in task.meta_columns} | dict(meta),
            completion=task.completion(row),
            closing={k: v for k, v in task.closing(row).items() if k not in ("role", "content")},
            tools=tools_of(row.get(task.tools_column), task.at(task.tools_column)),
            where=row.where,
        )


def _unique(ids: Iterable[str]) -> list[str]:
    """Number the second and later uses of an id, so that a prompt that occurs twice has two."""
    uses: dict[str, int] = {}
    out = []
    for name in ids:
        uses[name] = uses.get(name, 0) + 1
        out.append(name if uses[name] == 1 else f"{name}-{uses[name]}")
    return out
