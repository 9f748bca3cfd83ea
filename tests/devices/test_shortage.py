"""Errors that mean that memory is short, whatever library says so, and how they are told."""

from __future__ import annotations

import errno
import pickle
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

from opd.devices.shortage import Shortage, during, shortage
from opd.devices.team import each_rank
from opd.rollout.apart.child import said
from opd.text.bounded import Runaway, written
from opd.types import RunError, UserError
from tests.faults.hungry import CUDA, HUGE, refused

VLLM = "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine."


def late() -> None:
    try:
        bytearray(HUGE)
    except MemoryError as error:
        raise UserError("no model could be loaded") from error


def behind() -> None:
    try:
        raise MemoryError
    except MemoryError:
        raise KeyError("what was to be made") from None


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("work", "asked"),
    [
        (lambda: refused("torch"), "tried to allocate 1.68e+07 GiB"),
        (lambda: refused("numpy"), "unable to allocate 32.0 PiB for an array"),
        (lambda: refused("python"), "the system gave no more"),
        (lambda: refused("cuda"), "tried to allocate 20.00 GiB"),
        (late, "the system gave no more"),
        (raising(OSError(errno.ENOMEM, "Cannot allocate memory")), "Cannot allocate memory"),
        (raising(ValueError(VLLM)), "No available memory for the cache blocks"),
        (raising(ImportError("libx.so: failed to map segment from shared object")), "failed to map segment"),
    ],
)
def test_memory_that_is_short_is_told_as_what_was_asked_for(work: Callable[[], None], asked: str) -> None:
    with (
        pytest.raises(Shortage, match=r"^out of memory in eval \(score\): ") as caught,
        during("eval"),
        during("score"),
    ):
        work()
    assert asked in str(caught.value)
    assert caught.value.phases == ("eval", "score")


@pytest.mark.parametrize(
    "error",
    [ValueError("shapes do not match"), OSError(errno.ENOSPC, "No space left on device"), KeyError("out of memory")],
)
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, during("eval"):
        raise error
    assert caught.value is error


def test_a_template_that_asks_for_too_much_is_not_a_want_of_memory() -> None:
    with pytest.raises(Runaway, match="too much memory"), during("data"):
        written("a template", [], raising(MemoryError()))
    with pytest.raises(KeyError), during("data"):
        behind()


def test_what_the_functions_held_that_failed_is_free_when_it_is_told() -> None:
    held = []

    def work() -> None:
        large = np.zeros(3)
        held.append(weakref.ref(large))
        bytearray(HUGE)

    try:
        with during("update"):
            work()
    except Shortage:
        assert held[0]() is None


def test_it_goes_to_other_processes_as_what_it_is() -> None:
    told = pickle.loads(pickle.dumps(said(Shortage("20 GiB", ("generate",)))))
    assert str(told) == "out of memory in generate: 20 GiB"
    assert isinstance(told, Shortage)
    assert shortage(said(torch.OutOfMemoryError(CUDA))) is not None


class Two:
    """A team whose other rank has nothing to say."""

    rank, size, mesh = 0, 2, None

    def gather(self, value: object) -> list[object]:
        return [value, pickle.loads(pickle.dumps(value))]


def test_ranks_hear_of_it() -> None:
    with pytest.raises(RunError, match="out of memory: the system gave no more"):
        each_rank(Two(), raising(MemoryError()))
