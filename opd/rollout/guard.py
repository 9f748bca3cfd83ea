"""Keeps vLLM's side effects out of the process that it runs in: it reseeds, prints, and replaces a torch function."""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from opd.devices.shortage import shortage

RAISED = re.compile(r"^\(Worker.*?\] ((?:\w+\.)*\w*(?:Error|Exception)(?:: .+)?)$", re.MULTILINE)
"""The line of a worker's log, behind who it is, when and where, in which an exception ends."""


class OfWorker(RuntimeError):
    """What one of vLLM's workers that are processes of their own has raised, as it is written there."""


@contextmanager
def contained(log: bool, gpus: bool = True) -> Iterator[None]:
    """Start an engine inside this: afterwards the process is as it was, but for the engine.

    Args:
        log: Let what is written to stderr through; otherwise it is shown only if starting fails.
        gpus: Whether it computes in this process, which else has no business on them.
    """
    with ExitStack() as stack:
        for guard in (_environment(), randomness_kept(gpus), _functions()):
            stack.enter_context(guard)
        if not log:
            stack.enter_context(_quiet_stderr())
        yield


@contextmanager
def _environment() -> Iterator[None]:
    """Take back what vLLM writes into the environment (LD_PRELOAD, LOCAL_WORLD_SIZE) except its own keys."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for key in [key for key in os.environ if not key.startswith("VLLM_") and key not in before]:
            del os.environ[key]
        os.environ.update({key: value for key, value in before.items() if not key.startswith("VLLM_")})


@contextmanager
def randomness_kept(gpus: bool = True) -> Iterator[None]:
    """Put back the states of Python, numpy and torch: vLLM, for one, seeds them when it starts.

    Those of `gpus` take some memory of each that this process sees.
    """
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count() if gpus else 0)):  # by default it warns of several
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


@contextmanager
def _functions() -> Iterator[None]:
    """Put back what is replaced: torch.set_num_threads by one that only complains, and the excepthook."""
    import torch

    function, count, hook = torch.set_num_threads, torch.get_num_threads(), sys.excepthook
    try:
        yield
    finally:
        torch.set_num_threads, sys.excepthook = function, hook
        torch.set_num_threads(count)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send the file descriptor itself elsewhere, as C++ code writes to it too; show what came if there was an error."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except Exception as error:  # whatever it was, what was written before it says why
            sink.seek(0)
            said = sink.read()
            error.__cause__ = error.__cause__ or of_worker(said.decode("utf-8", "replace"))
            if not shortage(error):  # of which one line tells all
                os.write(kept, said)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def of_worker(said: str) -> OfWorker | None:
    """What the first that failed has written of it: the engine is told only that one did."""
    found = RAISED.search(said)
    return OfWorker(found[1]) if found else None


def line(error: Exception) -> str:
    """What kind of error it is, and the first line of what it says; of pydantic's, what is wrong."""
    if isinstance(error.__cause__, OfWorker):
        return str(error.__cause__)
    wrong = getattr(error, "errors", None)
    said = wrong()[0]["msg"] if callable(wrong) else str(error)
    return f"{type(error).__name__}: {(said.strip() or 'no reason given').splitlines()[0]}"
