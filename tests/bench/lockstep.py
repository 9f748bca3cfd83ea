"""Runs variants in processes of their own and lets them take turns: A B A B ..."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

Results = dict[str, list[dict[str, float]]]
"""Measurements of each variant, in the order taken."""


def fresh(variants: Mapping[str, dict[str, Any]], repeats: int) -> Results:
    """Measure each variant `repeats` times, every time in a new process: for memory."""
    out: Results = {name: [] for name in variants}
    for _ in range(repeats):
        for name, spec in variants.items():
            with worker(spec) as process:
                answer(process)
                out[name].append(ask(process))
    return out


def alternate(variants: Mapping[str, dict[str, Any]], repeats: int) -> Results:
    """Measure each variant `repeats` times in turn, after one turn that does not count: for time."""
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(worker(spec)) for name, spec in variants.items()}
        for process in running.values():
            answer(process)
        turns = [{name: ask(process) for name, process in running.items()} for _ in range(repeats + 1)][1:]
    return {name: [turn[name] for turn in turns] for name in variants}


@contextlib.contextmanager
def worker(spec: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A worker for one variant; it is gone afterwards, whatever happens."""
    command = [sys.executable, "-m", "tests.bench.worker", json.dumps(spec)]
    with tempfile.TemporaryFile("w+") as errors:
        # As `opd` sets it: waiting workers must not spin.
        env = {"OMP_WAIT_POLICY": "passive"} | os.environ
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            yield process
            pipe(process.stdin).close()
            process.wait(60)
        except EOFError:
            process.wait(60)
            errors.seek(0)
            raise RuntimeError(f"{spec['section']} {spec['variant']} failed:\n{errors.read()[-3000:]}") from None
        finally:
            process.kill()
            process.wait()


def ask(process: subprocess.Popen[str]) -> dict[str, float]:
    """Let a worker measure once."""
    try:
        print(file=pipe(process.stdin), flush=True)
    except BrokenPipeError:
        raise EOFError from None
    return answer(process)


def answer(process: subprocess.Popen[str]) -> dict[str, float]:
    """Wait for a worker's next line."""
    line = pipe(process.stdout).readline()
    if not line:
        raise EOFError
    return json.loads(line)


def pipe(stream: IO[str] | None) -> IO[str]:
    """The worker's end of a pipe that was asked for."""
    assert stream is not None
    return stream
