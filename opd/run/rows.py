"""`metrics.jsonl` as a run writes it: a line per step, kept in memory and in checkpoints too, never lost in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from opd.disk import added_to, whole, writing
from opd.run.checkpoint import ROWS_HELD, Checkpoint
from opd.run.metrics import decode_line, encode_number, read_metrics, scan
from opd.types import RunError, UserError

if TYPE_CHECKING:
    from torch import Tensor

NAME = "metrics"
"""Of its file in a checkpoint."""


class MetricsFile:
    """An append-only `metrics.jsonl`: a line is handed to the system as soon as it is written.

    `first` is the first step that this process is going to write. Lines of that step and of later ones, which a run
    that was killed after its last checkpoint leaves behind, are cut off, so that no step is in the file twice.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        first: int = 0,
        saved: Mapping[str, Tensor] | None = None,
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Open or create the file.

        Args:
            path: where; its folder is there.
            first: see the class.
            saved: what `state` has given after the step before `first`; the file is made to begin with it. What cannot
                be that counts as nothing.
            say: is told of rows that were lost, or are written again.

        Raises:
            UserError: the file is there and holds something else, and there is nothing to put in its place.
        """
        self.path = Path(path)
        self.last: float = first - 1
        self._say = say
        self._folder = self.path.parent.stat()
        held = held_rows(saved, first)
        self._rows, lacking = begun(self.path, first, damaged=held is not None)
        if self.path.is_symlink():
            with whole(self.path) as part:
                part.write_bytes(self._rows)
        with writing(self.path):
            self._file = added_to(self.path)
            self._file.truncate(len(self._rows))
        if held is not None and held != self._rows:
            say(f"{self.path} was not as the run had left it; its rows were taken from the checkpoint")
            self._rows = bytearray(held)
            self._renew()
        elif held is None and lacking:
            say(f"{self.path} lacks {lacking} of the {first} rows before step {first}, and the checkpoint has none")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the line of one step; where the file is not as it was left, write all of it again.

        Raises:
            ValueError: the step does not come after the last one.
            RunError: the run's folder is gone, or the disk is full.
        """
        if step <= self.last:
            raise ValueError(f"step {step} after step {self.last:g}: steps are written once and in order")
        row = {"step": step} | {name: encode_number(value) for name, value in metrics.items()}
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        intact = self._intact()
        self._rows += line
        if intact:
            with writing(self.path):
                self._file.write(line)
                self._file.flush()
        else:
            self._say(f"{self.path} was changed or removed by somebody else; it is written again, with all its rows")
            self._renew()
        self.last = step

    def state(self) -> dict[str, Tensor]:
        """The bytes of all lines, for a run's checkpoints."""
        import torch

        return {ROWS_HELD: torch.frombuffer(self._rows + b" ", dtype=torch.uint8)[:-1].clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put lines that `state` has given in place of those that are there."""
        self._rows = bytearray(state[ROWS_HELD].numpy())
        self._renew()

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        with suppress(OSError):  # of a line that could not be written, which was said then
            self._file.close()

    def _intact(self) -> bool:
        """Whether the file is what this process has written. RunError where its folder is not what it was."""
        folder = self.path.parent
        try:
            found = folder.stat()
        except OSError:
            found = None
        if found is None or not os.path.samestat(found, self._folder):
            raise RunError(f"run={folder}: the folder is gone, or another one has its name: nothing can be written")
        try:
            there, mine = self.path.lstat(), os.fstat(self._file.fileno())
        except OSError:
            return False
        return os.path.samestat(there, mine) and there.st_size == len(self._rows)

    def _renew(self) -> None:
        """Write all lines to a new file in place of what is there."""
        with whole(self.path) as part:
            part.write_bytes(self._rows)
        self.close()
        with writing(self.path):
            self._file = added_to(self.path)


def begun(path: Path, first: int, damaged: bool) -> tuple[bytearray, int]:
    """The lines of the steps before `first`, and how many there are too few; nothing of a file that may be damaged."""
    if path.exists() and not path.is_file():  # a pipe would be waited for, and some devices have no end
        raise UserError(f"{path}: this is no file, and the run's metrics are written there; move it elsewhere")
    ends: dict[float, int] = {}
    try:
        ends = {row["step"]: end for end, row in (scan(path) if path.exists() else ()) if row["step"] < first}
    except UserError:
        if not damaged:
            raise
    length = max(ends.values(), default=0)
    return bytearray(path.read_bytes()[:length] if length else b""), first - len(ends)


def rows_until(path: Path, begun: Checkpoint) -> list[dict[str, float]]:
    """Rows up to a checkpoint, as it holds them itself; one of an earlier opd leaves it to the run's file."""
    held = held_rows(begun.tensors(NAME), begun.step + 1)
    if held is not None:
        return decode_lines(held)
    rows = read_metrics(path) if path.exists() else []
    return [row for row in rows if row["step"] <= begun.step]


def held_rows(saved: Mapping[str, Tensor] | None, first: int) -> bytes | None:
    """The lines of the steps before `first` that a checkpoint holds; None where what it holds cannot be that."""
    rows = (saved or {}).get(ROWS_HELD)
    if rows is None or str(rows.dtype) != "torch.uint8":
        return None
    held = rows.numpy().tobytes()
    try:
        steps = [row["step"] for row in decode_lines(held)]
    except ValueError:
        return None
    return held if held.endswith(b"\n") and all(a < b for a, b in pairwise([*steps, first])) else None


def decode_lines(rows: bytes) -> list[dict[str, float]]:
    """Parse the lines of a `metrics.jsonl`; ValueError where one is none."""
    return [decode_line(line) for line in rows.splitlines()]
