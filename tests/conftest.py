"""Tiny models and tokenizers that tests share; nothing here needs a network."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from opd.run import startup

startup.prepare()  # before torch is imported, as the command line does
os.environ.setdefault("OPD_PARTS", "tests")  # fakes are named by the configs of runs
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tests compare with plain versions on the CPU; "0" for `-m gpu`
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if WORKER:  # a test process is started deaf to Ctrl-C, and so would be its engines and what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where tests run under nohup: what they start has to hear it
if WORKER and sys.platform == "linux":  # a test process for each core, and those beyond wherever one is idle
    cores, own = sorted(os.sched_getaffinity(0)), int(WORKER.removeprefix("gw"))
    if own < len(cores):
        os.sched_setaffinity(0, cores[own :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])])
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from huggingface_hub import constants

from tests.tiny import char_tokenizer, save_config, save_model

torch.set_num_threads(min(2, torch.get_num_threads()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first, so that test processes end at about the same time."""
    slow = Counter(item.path for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """What is imported and collected stays: whoever lets go of a model has not to look all of it through."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that takes connections and never says a word; gives who has come."""
    came, held = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with suppress(OSError):  # it is closed
                while True:
                    connection, (host, _) = server.accept()
                    held.append(connection)
                    came.append(host)

        thread = threading.Thread(target=listen)
        thread.start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
        yield came
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in held:
        connection.close()


@pytest.fixture(scope="session")
def tokenizer():
    """One token per character, with a chat template."""
    return char_tokenizer()


@pytest.fixture
def config(tmp_path: Path, student_dir: Path, teacher_dir: Path) -> Path:
    """A whole run of seconds on the transformers engine."""
    return save_config(tmp_path / "tiny.yaml", student_dir, teacher_dir)


@pytest.fixture
def deep() -> Iterator[Callable[[Path], Path]]:
    """Makes 1,100 folders in each other, and takes them away: not all that removes folders gets so deep."""
    made: list[Path] = []

    def make(folder: Path) -> Path:
        for _ in range(1100):
            folder = folder / "d"
            folder.mkdir()
            made.append(folder)
        return folder

    yield make
    for folder in reversed(made):
        shutil.rmtree(folder)
