"""Take the disk, or the right to use it, from real commands: one line, nothing half-written, and all goes on later.

With the right to mount file systems (root, or a namespace of `unshare`) disks are really full, read-only or out of
files; elsewhere those cases are skipped, and that is said.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from opd.run.checkpoint import checkpoints
from opd.run.directory import OWNER
from tests.faults.inputs import Ended, command, saved
from tests.faults.run import same, weights
from tests.faults.sites import Fault, Made, Site, lay
from tests.faults.verdict import said, table
from tests.tiny import save_config

MOUNTS = "OPD_TEST_MOUNTS"
"""In the environment: this process may mount file systems, where nobody else sees them."""
HANGS = 60.0
SLOW = 30.0
"""Seconds of a core within which a fault is to be told."""


def faults() -> list[Fault]:
    """All of them."""
    from tests.faults import disk_around, disk_gone, disk_readers, disk_room

    return [fault for kind in (disk_room, disk_gone, disk_readers, disk_around) for fault in kind.faults()]


def main(arguments: Sequence[str]) -> int:
    """Try all; print what was tried and what has held, by group."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults disk", description=__doc__)
    parser.add_argument("--only", default="", help="of those whose name matches")
    parser.add_argument("--times", type=int, default=1, help="that each of them is tried")
    given = parser.parse_args(arguments)
    if MOUNTS not in os.environ and (way := mounting()):
        again = [*way, sys.executable, "-m", "tests.faults", "disk", *arguments]
        os.execvpe(again[0], again, os.environ | {MOUNTS: "1"})
    tried: dict[str, list[str]] = defaultdict(list)
    skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        made = whole(Path(folder) / "made")
        for i, fault in enumerate([f for f in faults() if re.search(given.only, str(f))] * given.times):
            if fault.mounts and MOUNTS not in os.environ:
                skipped += 1
                continue
            begun, wrong = time.monotonic(), list(judged(fault, Site(Path(folder) / str(i), made)))
            tried[fault.group] += [f"{fault}: {'; '.join(wrong)}" if wrong else ""]
            took = time.monotonic() - begun
            print(f"{fault}: {'; '.join(wrong) or 'held'} ({took:.0f} s)", file=sys.stderr, flush=True)
    code = table(tried)
    print(f"skipped: {skipped}, as nothing can be mounted here" if skipped else "")
    return code


def mounting() -> list[str]:
    """The command in front of one that may then mount; empty where nobody may."""
    for way in (["unshare", "-m"], ["unshare", "-rm"]):
        probe = [*way, "mount", "-t", "tmpfs", "none", "/mnt"]
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return way
    return []


def whole(place: Path) -> Made:
    """A run that nobody harms; what commands import is imported once."""
    for name in ("eval.measure", "export.export", "chat.sample"):
        importlib.import_module(f"opd.commands.{name}")
    importlib.import_module("opd.report.page")
    place.mkdir()
    config = save_config(place / "tiny.yaml", *saved(place))
    site = Site(place, Made(config, place / "runs/run", {}))
    ended = command([*site.train(), "-q"], place)
    assert ended.code == 0, ended
    return Made(config, site.run, weights(site.run))


def judged(fault: Fault, site: Site) -> Iterator[str]:
    """Try one; what has not held."""
    for folder in (site.runs, site.aside, site.folder / "home", site.folder / "tmp"):
        folder.mkdir(parents=True)
    try:
        yield from _tried(fault, site)
    finally:
        if os.path.ismount(site.runs):
            subprocess.run(["umount", "-l", site.runs], check=True)


def _tried(fault: Fault, site: Site) -> Iterator[str]:
    if fault.steps is not None:
        lay(site, fault.steps)
    try:
        fault.harm(site)
        typed = fault.typed(site)
        ended = start(fault, site, typed)
    finally:
        fault.mend(site)
    yield from ending(fault, site, typed, ended)
    yield from left(site)
    if ended.code == 0:
        yield from result(fault, site, typed)
        return
    again = (fault.again or on)(site)
    ended = command([*again, *quiet(again)], site.folder, site.settle)
    if ended.code:
        yield f"and when it was over: {ended.err[-1:]}"
    else:
        yield from result(fault, site, again)


def quiet(typed: Sequence[str]) -> list[str]:
    """Say little, where a command knows how."""
    return ["-q"] if typed[0] in ("train", "eval", "export") else []


def start(fault: Fault, site: Site, typed: list[str]) -> Ended:
    """Carry the command out, in a home and a temporary folder of its own."""

    def inside() -> None:
        site.settle()
        fault.inside(site)

    if not fault.own:
        return command([*typed, *quiet(typed)], site.folder, inside)
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "opd", *typed, *quiet(typed)], preexec_fn=inside, cwd=site.folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=2 * HANGS, check=False,
    )  # fmt: skip
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime - begun.ru_utime - begun.ru_stime
    return Ended(done.returncode, done.stderr.decode("utf-8", "replace").splitlines(), seconds)


def ending(fault: Fault, site: Site, typed: Sequence[str], ended: Ended) -> Iterator[str]:
    """What is wrong with how a command ended."""
    lines = [text for text in ended.err if text.startswith("opd: ")]
    if ended.code not in (0, 1, 2):
        yield f"exit code {ended.code}: {ended.err[-1:]}"
    elif ended.code == 0 and fault.holds is False:
        yield "it was taken"
    elif ended.code and fault.holds:
        yield f"it did not work: {ended.err[-1:]}"
    elif ended.code:
        if len(lines) != 1:
            yield f"{len(lines)} lines: {ended.err[:3]}"
        if str(fault.says(site)) not in "".join(lines):
            yield f"it does not say {fault.says(site)}: {lines}"
        if any("harm" in text for text in typed) and ended.code == 1 and "checkpoint" not in "".join(lines):
            yield f"it does not say what there is to go on from: {lines}"
    if ended.seconds > SLOW:
        yield f"it took {ended.seconds:.0f} s"
    for text in ended.err:
        yield from said(text)


def left(site: Site) -> Iterator[str]:
    """What a command has left that is half-written."""
    found = [p for p in site.folder.rglob(".*") if not p.is_symlink() and "home" not in p.parts and p.name != OWNER]
    found += [p for p in (site.folder / "tmp").rglob("*") if "torchinductor" not in str(p)]
    if found:
        yield f"left: {[str(p.relative_to(site.folder)) for p in found[:5]]}"


def on(site: Site) -> list[str]:
    """How a run goes on: from its checkpoint, else from the start in another folder."""
    if checkpoints(site.run / "checkpoints"):
        harmed = "Harmful" in (site.run / "config.yaml").read_text(encoding="utf-8")
        return site.resume("steps=4", *(["teacher.harm=''"] if harmed else []))
    return Site(site.folder / "anew", site.made).train()


def result(fault: Fault, site: Site, typed: Sequence[str]) -> Iterator[str]:
    """What is wrong with what a command has made that says that it is done."""
    if typed[0] == "train":
        run = Path(next(text for text in typed if text.startswith("run=")).removeprefix("run="))
        if not checkpoints(run / "checkpoints") or checkpoints(run / "checkpoints")[-1].step != 4:
            yield "it has not ended with its last checkpoint"
        elif not same(weights(run), site.made.end):
            yield "its weights are others than those of a run that nobody harmed"
    elif fault.out and not fault.out(site).exists():
        yield f"there is no {fault.out(site)}"
    yield from fault.check(site)
