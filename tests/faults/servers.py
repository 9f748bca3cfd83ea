"""A teacher's server that lies in every way of the table: what is said of it, and what it costs to find out."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from opd.hints import line
from opd.needs import Needs
from opd.teachers import client
from opd.teachers.server import ServerTeacher
from opd.teaching import Pupil
from opd.types import RunError, UserError
from tests.faults.lies import CHOSEN, Lie
from tests.faults.run import opd
from tests.faults.told import lies
from tests.faults.verdict import said, table
from tests.teachers.served import Fake, Running
from tests.tiny import char_tokenizer, rollouts, save_config, save_model

TIMEOUT, PATIENCE = 1.0, 0.5
"""The teacher's settings, seconds."""
LONGEST = 15.0
"""Seconds after which a lie should be over, whatever it is; a busy machine included."""
MEMORY = 400 * 2**20
"""Bytes that one may cost."""
WANTED = Needs(logprobs=True, top_k=4)


def main(arguments: Sequence[str]) -> int:
    """Tell all lies; print what was tried and what has held, by group."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults servers", description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="that each of them is told")
    parser.add_argument("--only", default="", help="of those whose name has this in it")
    parser.add_argument("--runs", type=int, default=12, help="lies that are told to `opd train` as well")
    given = parser.parse_args(arguments)
    chosen = [lie for lie in lies() if given.only in f"{lie.group} {lie}"]
    tried: dict[str, list[str]] = defaultdict(list)
    client.FIRST_WAIT = 0.05
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        teacher = save_model(place / "teacher", "llama", seed=2, tied=False, hidden=96)
        for lie in chosen * given.times:
            wrong = list(judged(lie, teacher))
            tried[lie.group] += [f"{lie}: {'; '.join(wrong)}" if wrong else ""]
            print(f"{lie.group}, {lie}: {'; '.join(wrong) or 'held'}", file=sys.stderr, flush=True)
        student = save_model(place / "student", "qwen3", seed=1, tied=True)
        config = save_config(place / "tiny.yaml", student, teacher)
        for i, lie in enumerate(chosen[:: max(1, len(chosen) // given.runs)] if given.runs else []):
            wrong = list(trained(lie, teacher, config, place / f"run-{i}"))
            tried["opd train"] += [f"{lie}: {'; '.join(wrong)}" if wrong else ""]
            print(f"opd train, {lie}: {'; '.join(wrong) or 'held'}", file=sys.stderr, flush=True)
    return table(tried)


@dataclass
class Liar(Fake):
    """A server that tells the truth until it is armed."""

    armed: bool = False


def lying(lie: Lie, teacher: Path) -> Liar:
    """A server that tells it from the first request on, or as soon as `armed`."""
    fake = Liar(str(teacher), scores_chosen=lie.path == CHOSEN, armed=not lie.late)

    def tell(handler: BaseHTTPRequestHandler, status: int, content: Any) -> bool:
        if handler.path != lie.path or not fake.armed or status != 200:
            return False
        lie.tell(handler, status, content)
        return True

    fake.lie = tell
    return fake


def judged(lie: Lie, teacher: Path) -> Iterator[str]:
    """Tell a lie to a teacher in this process; what has not held."""
    fake = lying(lie, teacher)
    served = Running(fake)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    wanted = Needs(logprobs=True) if lie.path == CHOSEN else WANTED
    try:
        yield from _judged(lie, fake, served.url, wanted)
    finally:
        served.close()
    if (seconds := time.monotonic() - begun) > LONGEST:
        yield f"it took {seconds:.0f} s"
    if (more := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > MEMORY:
        yield f"it took {more // 1024} MiB"


def _judged(lie: Lie, fake: Liar, url: str, wanted: Needs) -> Iterator[str]:
    items = rollouts([(3, 5), (1, 1), (2, 9)])
    settings = {"url": url, "timeout": TIMEOUT, "patience": PATIENCE}
    try:
        scorer = ServerTeacher(**settings).start(Pupil(char_tokenizer(), 45))
        fake.armed = True
        try:
            found = scorer.score(items, wanted)
        finally:
            scorer.close()
    except (UserError, RunError) as error:
        yield from said(line(str(error)))
        return
    except Exception as error:  # whatever else comes is what is looked for
        yield f"internal error, {type(error).__name__}: {str(error)[:120]}"
        return
    if not lie.harmless:
        yield "it was believed"
    for j in found:
        tops = [] if j.top_logprobs is None else j.top_logprobs.flatten().tolist()
        if not all(-1e5 < value <= 0 for value in [*j.logprobs.tolist(), *tops]):
            yield f"scores {j.logprobs.tolist()}"


def trained(lie: Lie, teacher: Path, config: Path, run: Path) -> Iterator[str]:
    """Tell a lie to a whole run; what has not held."""
    served = Running(lying(lie, teacher))
    url, kept = f"teacher.url={served.url}", ("steps=1", "eval.every=0", "eval.size=2", "threads=1")
    own = ("~teacher.dtype", "~teacher.model", f"teacher.timeout={TIMEOUT}", f"teacher.patience={PATIENCE}")
    started = opd("train", f"conf={config}", f"run={run}", "teacher=server", url, *own, *kept)
    try:
        code, err = started.end(120)
    finally:
        served.close()
        started.clear()
    yield from _ended(lie, code, err)
    if code and run.exists() and not (run / "metrics.jsonl").exists():
        yield f"left: {sorted(os.listdir(run))}"


def _ended(lie: Lie, code: int, err: list[str]) -> Iterator[str]:
    lines = [text for text in err if not text.startswith("warning: ")]
    if code not in (0, 1, 2) or (code == 0 and not (lie.harmless or lie.late)):
        yield f"exit code {code}"
    if code and len(lines) != 1:
        yield f"{len(lines)} lines: {lines[:3]}"
    for text in err:
        yield from said(text)
