"""Checkpoints: which a run has, and which of them are what was written. `saving` makes them, `resuming` goes on."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from opd.devices.shortage import shortage
from opd.disk import files_below, lock, read_json, unlinked
from opd.models.kinds import INDEX, shards
from opd.plain import plain
from opd.run import manifest
from opd.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "step_"
STATE = "state.json"
KINDS = {"step": int, "optimizer_steps": int, "python_random": list, "base": dict, "stepped": list, "proven": bool}
ROWS, ROWS_HELD = "metrics", "rows"
"""What a run's metrics are called, and in a checkpoint's file of that name their lines."""
CONFIG, CONFIG_HELD = "config", "yaml"
"""The same of its settings."""
LONGEST = 2**16
"""Bytes of either that are looked at."""
LARGEST = 2**26
"""Bytes of state.json, which names every weight under an adapter."""
NEEDED = {"step", "optimizer_steps", "python_random"}
"""What state.json holds, and of that what every version of opd has written."""
UNPROVEN = f"it has no {manifest.NAME}, as an earlier opd wrote none: only names and headers of its files were checked"


@dataclass(frozen=True)
class Checkpoint:
    """A folder that a run has written, which may have been damaged since."""

    path: Path

    @property
    def step(self) -> int:
        """Loop steps that were done when it was written."""
        return step_of(self.path)

    @property
    def model(self) -> Path:
        """The model, or its adapter, in Hugging Face layout."""
        return self.path / "model"

    @property
    def proven(self) -> bool:
        """Whether it says itself what has to be in it."""
        return (self.path / manifest.NAME).exists()

    def tensors(self, name: str) -> dict[str, Tensor] | None:
        """What was saved under a name; None: nothing, as an earlier opd wrote it, or a run without it."""
        from safetensors.torch import load_file

        file = self.path / f"{name}.safetensors"
        return load_file(file) if file.is_file() else None

    def state(self) -> dict[str, Any]:
        """Its counters, and the state of Python's generator; ValueError where they cannot be read."""
        try:
            found = read_json(self.path / STATE, LARGEST)
        except (OSError, ValueError) as error:
            raise ValueError(f"{STATE}: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{STATE}: it cannot be read")
        if lost := NEEDED - found.keys():
            raise ValueError(f"{STATE} lacks {min(lost)}")
        if odd := [name for name, kind in KINDS.items() if name in found and type(found[name]) is not kind]:
            raise ValueError(f"{STATE}: {odd[0]} is {str(found[odd[0]])[:40]}")
        return found


@dataclass(frozen=True)
class Damaged:
    """A checkpoint that is not what was written, and how that shows."""

    checkpoint: Checkpoint
    why: str

    def __str__(self) -> str:
        return f"{self.checkpoint.path} is damaged ({self.why})"


def step_of(path: Path) -> int:
    """The number in a checkpoint's name."""
    return int(path.name.removeprefix(PREFIX))


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Checkpoints of a run, oldest first, and nothing else that lies in the folder."""
    return sorted((Checkpoint(p) for p in _numbered(folder) if _ours(p)), key=lambda c: c.step)


def held(folder: Path) -> list[Checkpoint]:
    """The same, each kept from removal by its run as long as this object of it lives, and the process: see `alone`."""
    while True:
        there = checkpoints(folder)
        if all(_hold(checkpoint) for checkpoint in there):
            return there  # else one of them has just been removed, as a newer one was written


def _hold(checkpoint: Checkpoint) -> bool:
    """Lock a checkpoint's state beside others that read it; whether it is still there, be it locked or not."""
    with suppress(OSError):  # it may be damaged, or on a disk that cannot lock it
        file = unlinked(str(checkpoint.path / STATE), os.O_RDONLY)
        weakref.finalize(checkpoint, os.close, file)
        lock(file, wait=True, shared=True)
    return os.path.lexists(checkpoint.path)


@contextmanager
def alone(checkpoint: Checkpoint) -> Iterator[None]:
    """Lock a checkpoint against those that would read it; BlockingIOError where somebody does."""
    with ExitStack() as stack:
        try:
            file = unlinked(str(checkpoint.path / STATE), os.O_RDWR)
            stack.callback(os.close, file)
            lock(file, wait=False)
        except BlockingIOError:
            raise
        except OSError:  # nobody reads what is damaged, and some disks know no locks
            pass
        yield


def strangers(folder: Path) -> list[Path]:
    """What has the name of a checkpoint and is none: a link, a file, another folder. Nobody reads or removes it."""
    return sorted(p for p in _numbered(folder) if not _ours(p))


def _numbered(folder: Path) -> list[Path]:
    numbers = {p: p.name.removeprefix(PREFIX) for p in folder.glob(f"{PREFIX}*")}
    return [p for p, number in numbers.items() if number.isascii() and number.isdecimal()]


def _ours(path: Path) -> bool:
    """Whether a run wrote it: links are never followed, as what they lead to may be another run's."""
    return not path.is_symlink() and any((path / name).exists() for name in (STATE, manifest.NAME))


def latest(folder: Path, read: str | None = "") -> tuple[Checkpoint | None, list[Damaged]]:
    """The newest good checkpoint of a run, None without one, and the newer ones; `read` as in `damage`."""
    return newest(checkpoints(folder), read)


def newest(there: Sequence[Checkpoint], read: str | None = "") -> tuple[Checkpoint | None, list[Damaged]]:
    """The same of these, the oldest first."""
    damaged: list[Damaged] = []
    for checkpoint in reversed(there):
        problem = damage(checkpoint, read)
        if problem is None:
            return checkpoint, damaged
        damaged.append(Damaged(checkpoint, problem))
    return None, damaged


def none_good(run: Path, damaged: Sequence[Damaged]) -> UserError:
    """What there is to say of a run that cannot go on."""
    others = [f"{path} is none (a link, or another's), and is not read" for path in strangers(run / "checkpoints")]
    why = "; ".join(["there is no checkpoint to go on from", *map(str, damaged), *others])
    return UserError(f"run={run}: {why}; put back what was changed, or {anew(run)}")


def anew(run: Path) -> str:
    """How a run without a good checkpoint begins anew by the same command, be it of a recipe."""
    return f"move {run / 'checkpoints'} out of the run to have it begin anew"


def damage(checkpoint: Checkpoint, read: str | None = "") -> str | None:
    """What of a checkpoint is not what was written; None where all is.

    Args:
        checkpoint: Where the manifest is. An older one has none: its files' names and headers have to do.
        read: Which files are read to the end and compared, as in `manifest.difference`; all by default.
    """
    if checkpoint.proven and (problem := manifest.difference(checkpoint.path, read)):
        return problem
    try:
        state = checkpoint.state()
        if state["step"] != checkpoint.step:
            return f"it is of step {state['step']}, and has another name"
        if not checkpoint.proven:
            return f"{manifest.NAME} is missing" if state.get("proven") else _unreadable(checkpoint)
    except ValueError as error:
        return str(error)
    return _of_another_run(checkpoint)


def _of_another_run(checkpoint: Checkpoint) -> str | None:
    """Which other checkpoint begins as the run's metrics do, where this one does not.

    Seconds are in a row, so that no two runs have the same. Where no other is to compare with, the run's file may be
    what was changed; but not its settings, too.
    """
    own, run = _first_row(checkpoint), checkpoint.path.parent.parent / f"{ROWS}.jsonl"
    if own is None or not run.is_file():
        return None
    with run.open("rb") as file:
        first = file.readline(LONGEST).rstrip(b"\n")
    others = checkpoints(checkpoint.path.parent) if first != own else []
    alike = next((c.path.name for c in others if _first_row(c) == first), None)
    if alike is None and first.startswith(b"{") and len(others) == 1:
        then, config = _held(checkpoint, CONFIG, CONFIG_HELD), run.with_name("config.yaml")
        if then and config.is_file() and not config.read_bytes().startswith(then):
            return "it is of another run: it has neither the rows nor the settings of this one"
    return f"it is of another run: its rows begin otherwise than {run.name} and {alike}" if alike else None


def _first_row(checkpoint: Checkpoint) -> bytes | None:
    """The first line of the metrics that a checkpoint holds; None where it has none that can be read."""
    return (_held(checkpoint, ROWS, ROWS_HELD) or b"").partition(b"\n")[0] or None


def _held(checkpoint: Checkpoint, name: str, key: str) -> bytes | None:
    """How a text begins that a checkpoint holds in a file; None where it has none that can be read."""
    file = checkpoint.path / f"{name}.safetensors"
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="np") as tensors:
            held = tensors.get_slice(key)
            return bytes(held[: min(LONGEST, *held.get_shape())]) if held.get_dtype() == "U8" else None
    except Exception as error:  # a file that cannot be read is told of elsewhere, in whatever words
        if shortage(error):
            raise
        return None


def _unreadable(checkpoint: Checkpoint) -> str | None:
    """Which file of a checkpoint without a manifest is missing, or is none of its kind."""
    model, place = checkpoint.model, checkpoint.path
    weights = [model / f"{name}.safetensors" for name in ("model", "adapter_model")]
    try:
        for place in sorted(p for p in files_below(checkpoint.path) if p.suffix in manifest.READ):
            if not place.is_file():  # a pipe would be waited for, and some devices have no end
                return f"{place.name} is no file"
            if place.suffix == ".json":
                plain(place.read_bytes())
            else:
                with safe_open(place, framework="np"):
                    pass
        needed = [checkpoint.path / "optimizer.safetensors", checkpoint.path / "random.safetensors"]
        configs = [model / name for name in ("config.json", "adapter_config.json")]
        needed.append(next((p for p in configs if p.exists()), configs[0]))
        if not any(p.exists() for p in weights):
            needed += [model / INDEX, *shards(model / INDEX)]
        lost = next((p for p in needed if not p.is_file()), None)
        return None if lost is None else f"{lost.relative_to(checkpoint.path)} is missing"
    except Exception as e:  # whatever a library says of a file that it cannot read
        if shortage(e):
            raise  # it says nothing of the file
        return f"{place.name}: {(str(e) or type(e).__name__).splitlines()[0]}"
