"""What a teacher said, on the disk: a folder of parquet files, one for every batch that was written."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from opd.disk import whole, writing
from opd.parquet import read_parquet
from opd.teachers.mark import same
from opd.teaching import Mark
from opd.types import ROUNDING, UserError

META = b"opd.teacher"
"""Key of a file's metadata: who wrote it, and how many likeliest tokens it keeps."""
MARKS = "marks"
"""Of that: what tells the models that lie elsewhere."""
WHICH = {"teacher": " (model or settings; what dtype=auto is depends on the machine, and can be named)"}
"""What may be different, in words."""


@dataclass(frozen=True)
class Entry:
    """A teacher's word on the T tokens of one completion."""

    logprobs: np.ndarray
    """Float32 [T]."""
    top_ids: np.ndarray | None = None
    """Int32 [T, k]."""
    top_logprobs: np.ndarray | None = None
    """Float32 [T, k]."""

    def cut(self, k: int) -> Entry:
        """The same with so many likeliest tokens, of which it has as many."""
        if not k or self.top_ids is None or self.top_logprobs is None:
            return Entry(self.logprobs)
        return Entry(self.logprobs, self.top_ids[:, :k], self.top_logprobs[:, :k])


@dataclass
class Shelf:
    """All entries of a folder, in memory."""

    folder: Path
    identity: Mapping[str, str]
    """Hashes of what the entries depend on, by a name for people."""
    top_k: int
    entries: dict[str, Entry]
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """What tells those models that lie elsewhere, by their names."""

    @classmethod
    def open(
        cls, folder: Path, identity: Mapping[str, str], top_k: int, marks: Mapping[str, Mark] | None = None
    ) -> Shelf:
        """Read a folder, or begin one.

        Raises:
            UserError: something else than `identity` wrote it, or models of other `marks`; it keeps fewer likeliest
                tokens, or a file is damaged.
        """
        if folder.exists() and not folder.is_dir():
            raise UserError(f"teacher.path={folder}: this is a file; allowed is a folder, which is made if need be")
        shelf, kept = cls(folder, dict(identity), top_k, {}, marks or {}), dict[str, int]()
        for path in sorted(folder.glob("*.parquet")):
            try:
                table = read_parquet(path)
                kept[path.name] = k = shelf._check(path, json.loads((table.schema.metadata or {}).get(META, b"null")))
                shelf.entries |= entries_of(table, k)
            except UserError:
                raise
            except Exception as error:  # pyarrow's, numpy's or JSON's, of a file that is not as it was written
                why = (str(error) or type(error).__name__).splitlines()[0]
                raise UserError(
                    f"teacher.path={folder}: {path.name} is damaged ({why}); remove it, and its entries are made again"
                ) from error
        shelf._agree(kept)
        return shelf

    def _agree(self, kept: Mapping[str, int]) -> None:
        """Keep as many likeliest tokens as the file that has the fewest, of all and of what is added."""
        least = min(kept.values(), default=self.top_k)
        if least < self.top_k:
            fewer = [name for name, k in kept.items() if k < self.top_k]
            other = f"move {', '.join(fewer[:5])} elsewhere, whose entries are then made again"
            raise UserError(
                f"teacher.top_k={self.top_k}: {self.folder} keeps {least}; allowed is at most that, or "
                + (other if len(fewer) < len(kept) else "name another folder")
            )
        self.top_k = least
        if len(set(kept.values())) > 1:  # two runs have begun it at once, or somebody has put two together
            self.entries = {key: entry.cut(least) for key, entry in self.entries.items()}

    def _check(self, path: Path, written: Any) -> int:
        """How many likeliest tokens a file keeps; UserError where it is another's."""
        if written is None:
            raise UserError(f"teacher.path={self.folder}: {path.name} is no teacher's; name a folder of its own")
        marks = written.get(MARKS, {})  # an earlier opd has written none
        others = [name for name, value in self.identity.items() if written[name] != value]
        others += ["teacher" for name, mark in self.marks.items() if name in marks and not same(marks[name], mark)]
        if others:
            raise UserError(
                f"teacher.path={self.folder}: it was written with another {others[0]}{WHICH.get(others[0], '')}; "
                "name another folder"
            )
        if not isinstance(k := written["top_k"], int) or k < 0:
            raise ValueError(f"it keeps {k} likeliest tokens")
        return k

    def add(self, entries: Mapping[str, Entry], write: bool = True) -> None:
        """Keep entries, and, where nobody else does, write them to a file that is there as a whole or not at all."""
        self.entries |= entries
        if write:
            self._write(entries)

    def _write(self, entries: Mapping[str, Entry]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        none = np.zeros(0)
        columns = {
            "key": pa.array(entries, pa.string()),
            "logprobs": pa.array([e.logprobs for e in entries.values()], pa.list_(pa.float32())),
            "top_ids": pa.array([flat(e.top_ids, none) for e in entries.values()], pa.list_(pa.int32())),
            "top_logprobs": pa.array([flat(e.top_logprobs, none) for e in entries.values()], pa.list_(pa.float32())),
        }
        meta = {META: json.dumps({**self.identity, "top_k": self.top_k, MARKS: dict(self.marks)}).encode()}
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        # Named by what is in it: two runs on one folder do not overwrite each other's files.
        final = self.folder / f"{hashlib.blake2b(''.join(entries).encode(), digest_size=12).hexdigest()}.parquet"
        with whole(final, f".{os.getpid()}") as part, part.open("wb") as file:
            pq.write_table(pa.table(columns).replace_schema_metadata(meta), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())


def entries_of(table: Any, top_k: int) -> dict[str, Entry]:
    """What is in a table, `top_k` likeliest tokens of each place; ValueError where it does not have them."""
    keys = table["key"].to_pylist()
    logprobs, ids, values = (rows(table[name]) for name in ("logprobs", "top_ids", "top_logprobs"))
    out = {}
    for key, own, best, theirs in zip(keys, logprobs, ids, values, strict=True):
        if not all((np.isfinite(row) & (row <= ROUNDING)).all() for row in (own, theirs)):
            raise ValueError(f"{key} has log-probs that are none")
        if not len(best) == len(theirs) == (asked := len(own) * top_k):
            raise ValueError(f"{key} has {len(best)} likeliest tokens and {len(theirs)} log-probs of the {asked}")
        if asked and (best.dtype.kind != "i" or (best < 0).any()):
            raise ValueError(f"{key} has tokens that are none")
        shape = (len(own), top_k)
        out[key] = Entry(own, best.reshape(shape), theirs.reshape(shape)) if top_k else Entry(own)
    return out


def flat(values: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    """A table as one row."""
    return none if values is None else values.reshape(-1)


def rows(column: Any) -> list[np.ndarray]:
    """The lists of a list column."""
    out = []
    for chunk in column.chunks:
        values, offsets = chunk.values.to_numpy(zero_copy_only=False), chunk.offsets.to_numpy()
        out += [values[a:b] for a, b in itertools.pairwise(offsets)]
    return out
