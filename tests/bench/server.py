"""A teacher on a vLLM server of its own core, as `opd serve-teacher` starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import httpx

STARTING = 300
"""Seconds."""


@contextmanager
def served(conf: str, core: int) -> Iterator[str]:
    """The address of a server with the teacher of a config; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "opd", "serve-teacher", f"conf={conf}", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--dtype", "float32"], env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, preexec_fn=partial(os.sched_setaffinity, 0, {core}),
    )  # fmt: skip
    url, last = f"http://127.0.0.1:{port}", time.monotonic() + STARTING
    try:
        while True:
            try:
                httpx.get(f"{url}/v1/models", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                if server.poll() is not None or time.monotonic() > last:
                    raise
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
