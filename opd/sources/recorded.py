"""The student as it began writes each prompt's completions once; whenever the prompt comes again, they are read back.

Source: Wu et al., "Lightning OPD", 2026 (arXiv 2604.13010): the teacher's log-probs of the SFT student's rollouts are
computed once, and no teacher is there in training (`teacher=cached`). They find the optimum to be the same where the
teacher is the one that wrote the data of the student's SFT, and another one otherwise. Chosen here: rollouts keep the
log-probs that they were sampled with, so that a policy gradient may weigh them by `pi / mu`, and the student of now is
judged.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from opd.devices.team import first_rank
from opd.disk import whole, writing
from opd.models.fingerprint import fingerprint
from opd.parquet import read_parquet
from opd.protocols import ModelSource
from opd.sources.student import ByStudent
from opd.types import ROUNDING, Pretrained, Prompt, Rollout, Sampling, UserError
from opd.writing import Desk, Sampler, Writer

META = b"opd.source"
"""Key of a file's metadata: which model wrote it."""
COLUMNS = ("key", "tokens", "logprobs", "truncated")
Entry = tuple[tuple[int, ...], tuple[float, ...], bool]
"""Tokens and log-probs of a completion, and whether it was cut."""


@dataclass(frozen=True, kw_only=True)
class Recorded(ByStudent):
    """Settings of a record. It pays where prompts come again, and with `teacher=cached`."""

    path: str
    """Folder of parquet files; made on first use, read into memory as a whole."""
    model: str | ModelSource
    """Who writes: the student as it began. It is only loaded, into an engine of its own, for prompts that are new."""

    stale = True

    def start(self, desk: Desk) -> Writer:
        """Read what is there; UserError where another model wrote it, or none can write."""
        begin = desk.model_engine
        if begin is None:
            raise UserError(
                "source=recorded: no other model than the student can write here; allowed is source=student"
            )
        path = self.model if isinstance(self.model, str) else self.model.path()
        record = first_rank(desk.team, lambda: Record.open(Path(self.path), identity(path)))
        return RecordedWriter(desk, functools.cache(lambda: begin(path)), record)


@dataclass
class Record:
    """All completions of a folder, in memory."""

    folder: Path
    identity: str
    """Of who wrote them."""
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    """By prompt and settings of sampling."""

    @classmethod
    def open(cls, folder: Path, identity: str) -> Record:
        """Read a folder, or begin one.

        Raises:
            UserError: another model wrote it, or a file is damaged.
        """
        if folder.exists() and not folder.is_dir():
            raise UserError(f"source.path={folder}: this is a file; allowed is a folder, which is made if need be")
        record = cls(folder, identity)
        for path in sorted(folder.glob("*.parquet")):
            try:
                table = read_parquet(path)
                wrote = (table.schema.metadata or {}).get(META, b"").decode()
                rows = list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)) if wrote else []
                found: dict[str, list[Entry]] = {}
                for key, tokens, logprobs, truncated in rows:
                    if len(tokens) != len(logprobs):
                        raise ValueError(f"{key} has {len(logprobs)} log-probs for {len(tokens)} tokens")
                    if not all(
                        type(t) is int and t >= 0 and v <= ROUNDING for t, v in zip(tokens, logprobs, strict=True)
                    ):
                        raise ValueError(f"{key} has tokens or log-probs that are none")
                    found.setdefault(key, []).append((tuple(tokens), tuple(map(float, logprobs)), bool(truncated)))
            except Exception as error:  # pyarrow's, of a file that is not as it was written
                why = (str(error) or type(error).__name__).splitlines()[0]
                raise UserError(
                    f"source.path={folder}: {path.name} is damaged ({why}); remove it, and its prompts are written anew"
                ) from error
            if wrote != identity:
                whose = "was written by another model" if wrote else "is no record of completions"
                raise UserError(f"source.path={folder}: {path.name} {whose}; name another folder")
            record.entries |= found
        return record

    def add(self, entries: Mapping[str, list[Entry]], write: bool) -> None:
        """Keep entries, and, where nobody else does, write them to a file that is there as a whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.entries |= entries
        if not write:
            return
        rows = [dict(zip(COLUMNS, (key, *entry), strict=True)) for key, several in entries.items() for entry in several]
        kinds = (pa.string(), pa.list_(pa.int64()), pa.list_(pa.float64()), pa.bool_())
        schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)), {META: self.identity.encode()})
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"{digest(*entries)}.parquet"
        with whole(final, f".{os.getpid()}") as part, part.open("wb") as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class RecordedWriter:
    """An open record, and who adds to it."""

    desk: Desk
    engine: Callable[[], Sampler]
    record: Record

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Give `n` completions of each prompt, written now where there are none, with the seeds of their places.

        What is read back is given: nobody writes it in this step (`writers`), and it costs nothing.
        """
        keys, n = [entry_key(prompt, sampling.trial or sampling) for prompt in prompts], sampling.n
        known = self.record.entries
        new = {k: i for i, k in reversed(list(enumerate(keys))) if k not in known}
        if new:
            at = sorted(new.values())
            places = tuple(i * n + j for i in at for j in range(n))
            drawn = self.engine().sample([prompts[i] for i in at], replace(sampling, places=places))
            entries = [(r.tokens, r.logprobs, r.truncated) for r in drawn]
            made = {keys[i]: entries[k * n : (k + 1) * n] for k, i in enumerate(at)}
            if sampling.trial is None:
                self.record.add(made, write=self.desk.team.rank == 0)
            known = known | made if sampling.trial else self.record.entries
        out = []
        for i, (prompt, key) in enumerate(zip(prompts, keys, strict=True)):
            written = Rollout(prompt, (), (), False, writers=("student",) if new.get(key) == i else ())
            out += [
                replace(written, tokens=tokens, logprobs=logprobs, truncated=truncated)
                for tokens, logprobs, truncated in known[key][:n]
            ]
        team = self.desk.team
        for rollout in (
            out[team.rank :: team.size] if not sampling.trial else ()
        ):  # of all that write, each tells of some
            self.desk.finished(rollout)
        return out


def entry_key(prompt: Prompt, sampling: Sampling) -> str:
    """Hash of what completions depend on beside who writes them."""
    drawn = {k: v for k, v in vars(sampling).items() if k not in ("seed", "places", "trial")}
    return digest(list(prompt.tokens), drawn)


def identity(path: str) -> str:
    """Of the model in a folder or of a hub name."""
    return digest(fingerprint(Pretrained(path)))


def digest(*parts: Any) -> str:
    """Hash of plain values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
