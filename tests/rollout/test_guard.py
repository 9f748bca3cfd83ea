"""What starting an engine may not leave behind."""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import pytest
import torch

from opd.devices.shortage import shortage
from opd.devices.threads import threads
from opd.rollout.guard import contained, line


def test_a_contained_start_leaves_environment_random_states_and_functions_as_they_were() -> None:
    function, count, hook = torch.set_num_threads, torch.get_num_threads(), sys.excepthook
    expected = [random.Random(0).random(), np.random.RandomState(0).rand(), torch.Generator().manual_seed(0)]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with contained(log=True):
        os.environ.update(LD_PRELOAD_OF_A_TEST="x", VLLM_OF_A_TEST="x")
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        torch.set_num_threads(count + 1)
        torch.set_num_threads = sys.excepthook = print
    assert "LD_PRELOAD_OF_A_TEST" not in os.environ
    assert os.environ.pop("VLLM_OF_A_TEST") == "x"
    assert (random.random(), np.random.rand()) == tuple(expected[:2])
    assert torch.equal(torch.rand(3), torch.rand(3, generator=expected[2]))
    assert (torch.set_num_threads, torch.get_num_threads(), sys.excepthook) == (function, count, hook)


def test_what_is_written_to_stderr_is_dropped_on_success(capfd: pytest.CaptureFixture[str]) -> None:
    with contained(log=False):
        os.write(2, b"noise of C++")
    assert capfd.readouterr().err == ""


def test_what_is_written_to_stderr_is_shown_on_failure_or_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), contained(log=False):
        os.write(2, b"hint of C++") / 0
    assert capfd.readouterr().err == "hint of C++"
    with contained(log=True):
        os.write(2, b"all of it")
    assert capfd.readouterr().err == "all of it"


@pytest.mark.parametrize(
    ("raised", "short"),
    [("KeyError: 'gate.bias'", False), ("AssertionError", False),
     ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", True)],
)  # fmt: skip
def test_what_a_worker_in_another_process_has_raised_is_what_is_told(
    raised: str, short: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    before = "(Worker_TP1 pid=7) ERROR 11-30 18:12:00 [multiproc_executor.py:953]"
    said = "\n".join(f"{before} {words}" for words in ("Traceback:", '  raise OSError("x")', raised, "RuntimeError: y"))
    with pytest.raises(ZeroDivisionError) as caught, contained(log=False):
        os.write(2, said.encode()) / 0
    assert line(caught.value) == raised
    assert (shortage(caught.value) is not None, capfd.readouterr().err == "") == (short, short)


def test_threads_are_lent_for_a_while() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
