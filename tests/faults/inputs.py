"""Configs, overrides, paths, rows and model folders of every bad kind: each gives one line, and leaves nothing."""

from __future__ import annotations

import argparse
import io
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path

from opd.console.outlet import opened
from tests.faults.verdict import said, table
from tests.tiny import cli_code, save_config, save_model

HANGS = 60.0
"""Seconds after which a case is ended, on a machine that does other things too."""
SLOW = 10.0
"""Seconds of a core within which a mistake is to be told, where the libraries are imported already."""
MEMORY = 6 * 2**30
"""Bytes of addresses that a case may have beyond those that it begins with: it fails before the machine does."""


@dataclass(frozen=True)
class Place:
    """Where a case is tried: a folder of its own, and two models that nobody changes."""

    folder: Path
    student: Path
    teacher: Path

    def config(self, more: str = "") -> Path:
        """A config of a run of one step, and further text at its end."""
        file = save_config(self.folder / "tiny.yaml", self.student, self.teacher)
        text = file.read_text().replace("steps: 6", "steps: 1").replace("size: 8, every: 3", "size: 2, every: 0")
        file.write_text(text + more, encoding="utf-8", errors="surrogatepass")
        return file


@dataclass(frozen=True)
class Bad:
    """One of them."""

    group: str
    name: str
    make: Callable[[Place], list[str]]
    """Writes its files, and says what is typed; without `run=`, which is given."""
    harmless: bool = False
    """Whether it may as well be taken: what it says can be done."""
    refused: str = ""
    """What the line has to have in it."""

    def __str__(self) -> str:
        return f"{self.group}, {self.name}"


@dataclass(frozen=True)
class Ended:
    """How a command has ended."""

    code: int
    err: list[str]
    seconds: float


def cases() -> Iterator[Bad]:
    """All of them."""
    from tests.faults import bad_configs, bad_data, bad_folders, bad_models, bad_typed

    yield from bad_configs.cases()
    yield from bad_typed.cases()
    yield from bad_data.cases()
    yield from bad_folders.cases()
    yield from bad_models.cases()


def main(arguments: Sequence[str]) -> int:
    """Try all; print what was tried and what has held, by group."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults inputs", description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="that each of them is tried")
    parser.add_argument("--only", default="", help="of those whose name matches")
    given = parser.parse_args(arguments)
    tried: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        models = saved(Path(folder))
        for i, case in enumerate([c for c in cases() if re.search(given.only, str(c))] * given.times):
            wrong = list(judged(case, Place(Path(folder) / str(i), *models)))
            tried[case.group] += [f"{case}: {'; '.join(wrong)}" if wrong else ""]
            print(f"{case}: {'; '.join(wrong) or 'held'}", file=sys.stderr, flush=True)
    return table(tried)


def saved(folder: Path) -> tuple[Path, Path]:
    """A student and a teacher; what every case imports is imported once, by a mistake that is found late."""
    student = save_model(folder / "student", "qwen3", seed=1, tied=True)
    teacher = save_model(folder / "teacher", "llama", seed=2, tied=False, hidden=96)
    config = save_config(folder / "tiny.yaml", student, teacher)
    with redirect_stderr(io.StringIO()):
        assert cli_code(["train", f"conf={config}", f"run={folder / 'run'}", "data.max_prompt_tokens=1", "-q"]) == 2
    return student, teacher


def judged(case: Bad, place: Place) -> Iterator[str]:
    """Try one; what has not held."""
    place.folder.mkdir()
    typed = case.make(place)
    before = listed(place.folder)
    run = [] if any(text.startswith(("run=", "runs=")) for text in typed) else [f"run={place.folder / 'run'}"]
    ended = command([*typed, *run, "-q"], place.folder)
    lines = [text for text in ended.err if text.startswith("opd: ")]
    if ended.code not in (0, 2):
        yield f"exit code {ended.code}: {ended.err[-1:]}"
    elif ended.code == 0 and not case.harmless:
        yield "it was taken"
    if ended.code == 2:
        if len(lines) != 1:
            yield f"{len(lines)} lines: {ended.err[:3]}"
        if left := listed(place.folder) - before:
            yield f"left: {sorted(left)[:5]}"
        if ended.seconds > SLOW:
            yield f"it took {ended.seconds:.0f} s"
        if case.refused not in "".join(lines):
            yield f"it does not say {case.refused!r}: {lines}"
    for text in ended.err:
        yield from said(text)


def listed(folder: Path) -> set[str]:
    """Everything in a folder, by name."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.name != "__pycache__" and p.suffix != ".pyc"}


def command(
    arguments: list[str], folder: Path, harm: Callable[[], object] = lambda: None, memory: int = MEMORY
) -> Ended:
    """Run `opd` in a copy of this process, in a folder; one that does not end in time is ended.

    `harm`: what is done to the copy before; `memory`: bytes that it may take.
    """
    ours, theirs = os.pipe()  # no file: that may be what it is not allowed to write
    child = os.fork()
    if not child:
        _carry_out(arguments, folder, theirs, harm, memory)
    os.close(theirs)
    with ThreadPoolExecutor(1) as reader, open(ours, "rb") as stream:
        told = reader.submit(stream.read)
        code, seconds = _wait(child, time.monotonic() + HANGS)
        with suppress(ProcessLookupError):  # what it has left would keep the pipe open
            os.killpg(child, signal.SIGKILL)
        text = told.result().decode("utf-8", "replace")
    return Ended(code, text.splitlines(), seconds)


def limit(memory: int) -> None:
    """Give this process so many bytes of addresses more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))


def _carry_out(arguments: list[str], folder: Path, out: int, harm: Callable[[], object], memory: int) -> None:
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = opened(1), opened(2)
        limit(memory)
        harm()
        from opd import cli

        try:
            cli.main(arguments)
            code = 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _wait(child: int, until: float) -> tuple[int, float]:
    """The exit code, and seconds of a core."""
    while True:
        found, status, used = os.wait4(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
