"""Several processes that stand in for several GPUs: started once, and asked to call a function together."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from opd.devices.team import Team
from opd.unseen import leave_out

Call = Callable[..., Any]
"""A function at the top of a module whose first argument is the team."""


class Processes:
    """`size` ranks that wait for work, groups of `shard` of which have one copy of a model's weights."""

    def __init__(self, size: int, shard: int | None = None) -> None:
        self.size, self.shard = size, shard
        self.ends: list[Connection] = []
        self.processes: list[Any] = []

    def start(self) -> None:
        """Begin them, as a group of its own."""
        self.folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            store = Path(self.folder.name) / "store"
            process = context.Process(target=_serve, args=(rank, self.size, self.shard, store, theirs), daemon=True)
            process.start()
            theirs.close()
            self.ends.append(ours)
            self.processes.append(process)

    def __call__(self, function: Call, *arguments: Any) -> list[Any]:
        """What `function(team, *arguments)` gives on each rank, by rank; the traceback of the first that fails."""
        if not self.processes:
            self.start()
        for end in self.ends:
            end.send((function, arguments))
        answers: dict[int, Any] = {}
        while len(answers) < self.size:
            for end in wait([e for rank, e in enumerate(self.ends) if rank not in answers]):
                rank = self.ends.index(end)
                try:
                    fine, answers[rank] = end.recv()
                except EOFError:
                    self.processes[rank].join()
                    fine, answers[rank] = False, f"it has ended: exit code {self.processes[rank].exitcode}"
                if not fine:  # the others wait for it
                    self.close()
                    raise AssertionError(f"rank {rank} of {self.size}:\n{answers[rank]}")
        return [answers[rank] for rank in range(self.size)]

    def close(self) -> None:
        """End them; the next call begins others."""
        for process in self.processes:
            process.kill()
            process.join()
        self.ends, self.processes = [], []


@contextmanager
def processes(size: int, shard: int | None = None) -> Iterator[Processes]:
    """Ranks for the time of a block."""
    started = Processes(size, shard)
    try:
        yield started
    finally:
        started.close()


def _serve(rank: int, size: int, shard: int | None, store: Path, pipe: Connection) -> None:
    """One rank: calls what it is sent, until its end of the pipe is closed."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "OPD_STORE": f"file://{store}", "OMP_NUM_THREADS": "1"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    leave_out()
    import torch

    from opd.devices.ranks import Ranks

    torch.set_num_threads(1)
    with Ranks(shard=shard, timeout=60).join() as team:
        while True:
            try:
                function, arguments = pipe.recv()
            except EOFError:
                return
            pipe.send(_called(function, team, arguments))


def _called(function: Call, team: Team, arguments: Any) -> tuple[bool, Any]:
    try:
        return True, function(team, *arguments)
    except Exception:  # goes to the test, which fails with it
        return False, traceback.format_exc()
