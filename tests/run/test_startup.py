"""What is set before torch is imported."""

from __future__ import annotations

import os

import pytest

from opd.run.startup import KERNELS, prepare

CAPACITIES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def test_kernels_of_shapes_that_do_not_come_back_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CAPACITIES:
        monkeypatch.delenv(name, raising=False)
    prepare()
    assert [os.environ[name] for name in CAPACITIES] == [str(KERNELS)] * 2


def test_a_number_of_kernels_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CAPACITIES:
        monkeypatch.setenv(name, "4096")
    prepare()
    assert [os.environ[name] for name in CAPACITIES] == ["4096"] * 2
