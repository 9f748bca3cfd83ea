"""What runs in an engine's own process: it answers one request after the other, and ends with its parent."""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from opd.devices.leftovers import sweep
from opd.devices.shortage import during, shortage
from opd.rollout.apart.kept import Entry, Place, Reader, Shared
from opd.rollout.arrays import arrays_to_rows, rollouts_to_arrays, rows_to_arrays
from opd.types import Example, Pretrained, Prompt, RunError, Sampling, UserError
from opd.unseen import leave_out
from opd.writing import Engine, Sampler

NOBODY = Example("", ())
"""Stands in for the examples, which stay with the parent."""
ENGINE = "OPD_ENGINE"
"""The environment variable by which an engine's processes are known: no two engines have the same."""
DEAF = [s for name in ("SIGINT", "SIGTERM", "SIGHUP") if (s := getattr(signal, name, None)) is not None]
"""A terminal, or a scheduler, sends them to the whole group; the parent decides what becomes of its engines."""


def serve(
    pipe: Connection, parent: int, engine: Engine, model: Pretrained, max_len: int, seed: int, threads: int
) -> None:
    """Start the engine and answer requests `(number, name, arguments)` with `(number, answer or exception)`."""
    leave_out()
    for number in DEAF:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DEAF)  # blocked while there was no Python yet to ignore them
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, parent, requests), daemon=True).start()
    try:
        import torch

        torch.set_num_threads(threads)
        sampler = engine.start(model, max_len=max_len, seed=seed)
    except Exception as error:  # an engine or its model may fail in any way; whoever asked is told
        pipe.send((0, said(error)))
        return
    pipe.send((0, None))
    answers = Answers(sampler)
    while True:
        number, name, arguments = requests.get()
        try:
            answer = getattr(answers, name)(*arguments)
        except Exception as error:  # likewise
            answer = said(error)
        pipe.send((number, answer))
        if name == "close":
            return


def _listen(pipe: Connection, parent: int, requests: queue.SimpleQueue[Any]) -> None:
    """Queue what comes; end the process with its parent, also in the middle of its work, and what it has started."""
    with suppress(EOFError, OSError):
        while os.getppid() == parent:  # something that the parent has forked may hold the other end open
            if pipe.poll(1.0):
                requests.put(pipe.recv())
    sweep(f"{ENGINE}={os.environ.get(ENGINE)}")
    os._exit(1)


def said(error: Exception) -> Exception:
    """The errors that are shown to people as they are; others, which may not fit through a pipe, in words."""
    words = str(error) if isinstance(error, UserError | RunError) else f"rollout: {type(error).__name__}: {error}"
    told = shortage(error) or (UserError if isinstance(error, UserError) else RunError)(words)
    told.add_note("".join(traceback.format_exception(error)))  # notes go through pipes, causes do not
    return told


class Answers:
    """A sampler that takes and returns plain data."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self._weights = sampler, Reader()

    def sample(self, prompts: Mapping[str, Any], sampling: Sampling) -> Mapping[str, Any]:
        """Completions of prompts that are given by their ids."""
        owners = [Prompt(NOBODY, row or ()) for row in arrays_to_rows("prompts", prompts)]
        with during("generate"):
            return rollouts_to_arrays(self._sampler.sample(owners, sampling))

    def logprobs(self, pairs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Scores of given completions."""
        rows = (arrays_to_rows(name, pairs) for name in ("prompts", "completions"))
        scores = self._sampler.logprobs([(p or (), c or ()) for p, c in zip(*rows, strict=True)])
        return rows_to_arrays("logprobs", scores, float)

    def load_weights(self, places: list[Place], index: list[Entry], version: int) -> None:
        """Take new weights from shared memory."""
        self._sampler.load_weights(Shared(self._weights, places, index), version)

    def close(self) -> None:
        """Free everything."""
        self._sampler.close()
