"""Tiny models and tokenizers that tests share; nothing here needs a network."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path

from opd.run import startup

startup.prepare()  # before torch is imported, as the command line does
os.environ.setdefault("OPD_PARTS", "tests")  # fakes are named by the configs of runs
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tests compare with plain versions on the CPU; "0" for `-m gpu`
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if WORKER:  # a test process is started deaf to Ctrl-C, and so would be its engines and what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where tests run under nohup: what they start has to hear it
if WORKER and sys.platform == "linux":  # each of several test processes has its own share of the cores
    CORES, WORKERS = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, CORES[int(WORKER.removeprefix("gw")) % len(CORES) :: WORKERS])

import pytest
import torch

from tests.tiny import char_tokenizer, save_config, save_model

torch.set_num_threads(min(2, torch.get_num_threads()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first, so that test processes end at about the same time."""
    slow = Counter(item.path for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: -slow[item.path])


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are no name: what packs them may write the time, and two test processes would collect other tests."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def student_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 with tied embeddings."""
    return save_model(tmp_path_factory.mktemp("student"), "qwen3", seed=1, tied=True)


@pytest.fixture(scope="session")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a head of its own, over the same characters."""
    return save_model(tmp_path_factory.mktemp("teacher"), "llama", seed=2, tied=False, hidden=96)


@pytest.fixture(scope="session")
def tokenizer():
    """One token per character, with a chat template."""
    return char_tokenizer()


@pytest.fixture
def config(tmp_path: Path, student_dir: Path, teacher_dir: Path) -> Path:
    """A whole run of seconds on the transformers engine."""
    return save_config(tmp_path / "tiny.yaml", student_dir, teacher_dir)
