"""What a run measures of itself: `metrics.jsonl`, seconds per phase, peak memory."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opd.devices.shortage import during
from opd.types import UserError

MOST = 10**9
"""Steps that a run can have."""
SHARED_PHASES = ("generate", "score", "update", "push")
"""The phases whose share of a step is logged; all the rest of it is `perf/other_share`."""


def encode_number(value: float) -> float | str:
    """Return a JSON-legal value: JSON has no NaN and no infinity, and null could not tell them apart."""
    return value if math.isfinite(value) else str(float(value))


def decode_line(line: bytes) -> dict[str, float]:
    """Parse one line of `metrics.jsonl`; the strings "nan", "inf" and "-inf" become floats again, and null is "nan".

    Raises:
        ValueError: it is something else; says what.
    """
    try:
        row: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("its brackets go too deep") from error
    if not isinstance(row, dict):
        raise ValueError("it is not an object")
    found = {name: _number(name, value) for name, value in row.items()}
    if not float(step := found.get("step", math.nan)).is_integer() or not 0 <= step <= MOST:
        raise ValueError(f"it has no step, a whole number from 0 to {MOST}")
    return found | {"step": int(found["step"])}


def _number(name: str, value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} is {str(value)[:40]!r}, which is no number") from error


def scan(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (byte where it ends, row) of every whole line; a half-written last one, as SIGKILL leaves it, is dropped.

    Raises:
        UserError: a whole line is not a JSON object with a step, or the file cannot be read.
    """
    end, before = 0, -1.0
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: this is no file, and a run's metrics are; move it elsewhere")
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                row = _row(path, number, line)
                if row["step"] <= before:
                    raise UserError(f"{path}, line {number}: step {row['step']} after {before:g}; take the line out")
                before = row["step"]
                yield end, row
    except OSError as error:
        raise UserError(f"{path}: it cannot be read: {error.strerror}") from error


def _row(path: Path, number: int, line: bytes) -> dict[str, float]:
    try:
        return decode_line(line)
    except ValueError as error:
        raise UserError(
            f"{path}, line {number}: this is not what a run writes of a step, {error}; take the line out"
        ) from error


def skim(path: Path, head: int = 3) -> list[dict[str, float]]:
    """The first rows, the last one and those of evaluations; of the others it is only seen that they begin as rows do.

    Raises:
        UserError: as `scan`.
    """
    rows: list[dict[str, float]] = []
    left: tuple[int, bytes] | None = None
    try:
        if not path.is_file():
            return read_metrics(path) if path.exists() else []
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                plain = number > head and line.startswith(b'{"step": ') and b'"eval/' not in line
                left = (number, line) if plain else None
                rows += [] if plain else [_row(path, number, line)]
    except OSError as error:
        raise UserError(f"{path}: it cannot be read: {error.strerror}") from error
    return [*rows, _row(path, *left)] if left else rows


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Read `metrics.jsonl`: one dict per step, in step order, the step itself under "step".

    Raises:
        UserError: a whole line is not a JSON object with a step, or the file cannot be read.
    """
    return [row for _, row in scan(Path(path))]


def wait_for_device() -> None:
    """Wait for the kernels in flight where CUDA is in use, so that a phase pays for its own work."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Phases:
    """Seconds per phase of a step: `with phases("generate"): ...`, then `take()` once per step.

    Phases do not add up twice: inside a phase another one is not counted, so that the generation of an eval belongs
    to `eval` and leaves the tokens/s of training alone.
    """

    def __init__(
        self,
        on_enter: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        wait: Callable[[], None] = wait_for_device,
    ) -> None:
        """Start the clock of the first step; `on_enter` is told the name of every phase that begins."""
        self._on_enter, self._clock, self._wait = on_enter, clock, wait
        self._inside = False
        self._seconds: dict[str, float] = {}
        self._since = clock()
        self.total: dict[str, float] = {}
        """Seconds per phase over everything taken so far."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time of a `with` block to the phase `name`; where memory is short in it, its name is said."""
        if self._inside:
            yield
            return
        self._inside = True
        if self._on_enter is not None:
            self._on_enter(name)
        self._wait()
        start = self._clock()
        try:
            with during(name):
                yield
                self._wait()
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - start
            self._inside = False

    def take(self, tokens: Mapping[str, float] | None = None) -> dict[str, float]:
        """Give the figures since the last call, under the names of `metrics.jsonl`, and begin the next step.

        Args:
            tokens: how many tokens a phase handled; adds its `perf/NAME_tokens_s`.

        Returns:
            `perf/NAME_s` of each phase that ran, `perf/step_s` of all of it, and `perf/NAME_share` of generate, score,
            update, push and other (eval, checkpoints and the time outside any phase), which add up to 1.
        """
        now = self._clock()
        seconds, step = self._seconds, now - self._since
        self._seconds, self._since = {}, now
        out = {f"perf/{name}_s": value for name, value in seconds.items()} | {"perf/step_s": step}
        shares = {name: seconds.get(name, 0.0) / step if step > 0 else 0.0 for name in SHARED_PHASES}
        out |= {f"perf/{name}_share": value for name, value in shares.items()}
        out["perf/other_share"] = max(0.0, 1.0 - sum(shares.values()))
        for name, count in (tokens or {}).items():
            if seconds.get(name, 0.0) > 0:
                out[f"perf/{name}_tokens_s"] = count / seconds[name]
        for name, value in seconds.items():
            self.total[name] = self.total.get(name, 0.0) + value
        return out


def peak_memory_gb() -> float:
    """Return the most memory this process has held so far, in 1e9 bytes: of the GPU where CUDA is in use, else RAM."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
