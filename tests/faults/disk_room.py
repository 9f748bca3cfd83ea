"""Disks without room: too little for a file, full, out of files, read-only."""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.faults.sites import Act, Fault, Site, harmed, lay, spelled

FILES = (0, 100, 1500, 5000, 11_000, 300_000, 600_000)
"""Bytes that a file may have: less than the owner's note, a list of overrides, a config, random states, rollouts,
a model, an optimizer."""
DISKS = (16, 64, 512, 1024, 2048, 2900, 3200)
"""Kilobytes of a disk: one checkpoint has some 950, and there are three at once."""


def faults() -> Iterator[Fault]:
    """All of them."""
    yield from _files()
    yield from _disks()


def narrow(size: int) -> Act:
    """Let no file be larger: a disk that is full, to whoever writes."""

    def inside(site: Site) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return inside


def _files() -> Iterator[Fault]:
    for size in FILES:
        yield Fault("narrow", f"a new run, files of {size}", Site.train, inside=narrow(size))
        yield Fault("narrow", f"a resumed run, files of {size}", Site.resume, inside=narrow(size), steps=2)
        for call in (3, 5):
            harm = f"prlimit --fsize={size}: --pid $PPID"
            yield Fault("narrow", f"at judgement {call}, files of {size}", harmed(harm, call))


def disk(size: int = 100_000, files: int = 10_000, more: str = "") -> Act:
    """Mount one, of kilobytes and a number of files."""
    return lambda site: mount(site, f"size={size}k,nr_inodes={files}{more}")


def mount(site: Site, options: str) -> None:
    """Mount a disk where the runs lie, or change it."""
    what = [] if options.startswith("remount") else ["-t", "tmpfs", "none"]
    subprocess.run(["mount", "-o", options, *what, site.runs], check=True)


def room(site: Site) -> None:
    """Give the disk room again."""
    mount(site, "remount,rw,size=100000k,nr_inodes=10000")
    (site.runs / "filler").unlink(missing_ok=True)


def uncovered(site: Site) -> None:
    """Take the upper disk away."""
    subprocess.run(["umount", site.runs], check=True)


def fill(free: int = 0) -> str:
    """A shell's command that leaves some kilobytes free."""
    return f"fallocate -l $(($(df -k --output=avail HERE/runs | tail -n 1) - {free}))k HERE/runs/filler"


def _disks() -> Iterator[Fault]:
    def on(name: str, typed: Callable[[Site], list[str]], harm: Act, holds: bool | None = False) -> Fault:
        return Fault("disks", name, typed, harm, mend=room, holds=holds, mounts=True)

    def laid(harm: str) -> Act:
        def make(site: Site) -> None:
            mount(site, "size=100000k")
            lay(site, 2)
            subprocess.run(["sh", "-c", spelled(site, harm)], check=True)

        return make

    for size in DISKS:
        yield on(f"a new run on {size} kB", Site.train, disk(size), holds=None)
    for files in (1, 2, 3, 5, 9, 15, 25, 30, 35, 40, 45, 50):
        yield on(f"a new run, room for {files} files", Site.train, disk(files=files), holds=None)
    for call in (3, 4, 5, 6):
        for free in (0, 20, 700):
            yield on(f"{free} kB free from judgement {call} on", harmed(fill(free), call), disk(), holds=None)
    yield on("a new run on a read-only disk", Site.train, disk(more=",ro"))
    over = harmed("mount -t tmpfs -o ro none HERE/runs", 5)
    yield replace(on("another disk lies over it in mid-run", over, disk()), mend=uncovered)
    yield on("a resumed run, full", Site.resume, laid(fill()))
    yield on("a resumed run, read-only", Site.resume, laid("mount -o remount,ro HERE/runs"))
