"""What reads a run, and writes elsewhere or nothing: of one that is read-only, or where there is no room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.disk_gone import opened, shell, unprivileged
from tests.faults.disk_room import disk, fill, narrow, room
from tests.faults.sites import Act, Fault, Site, lay, nothing, spelled

WRITERS = {
    "eval": ("eval run=RUN eval.size=2", "RUN/eval/final_after.json"),
    "export": ("export run=RUN --dtype float32", "RUN/export/step_000004/model.safetensors"),
    "report": ("report RUN", "RUN/report.html"),
}
"""Commands that write into the run by default, and a file that they write last."""
ELSEWHERE = {
    "eval": ("eval run=RUN eval.size=2 --out HERE/aside/e", "HERE/aside/e/final_after.json"),
    "export": ("export run=RUN --dtype float32 --out HERE/aside/x", "HERE/aside/x/model.safetensors"),
    "report": ("report RUN --out HERE/aside/r.html", "HERE/aside/r.html"),
    "sample": ("sample run=RUN -p 1+1", "RUN"),
    "doctor": ("doctor run=RUN", "RUN"),
    "plan": ("plan conf=RUN/config.yaml --gpu h100", "RUN"),
}
"""Those that write nothing there."""


def faults() -> Iterator[Fault]:
    """All of them."""
    for name, (typed, out) in WRITERS.items():
        yield from _of_writer(name, typed, out)
    for name, (typed, out) in ELSEWHERE.items():
        yield reader(f"{name} of a run that is read-only", typed, out, closed_tree, inside=unprivileged, holds=True)
        yield reader(f"{name} of a run on a read-only disk", typed, out, read_only, mounts=True, holds=True)
        yield reader(f"{name} of a run on a full disk", typed, out, full, mounts=True, holds=True)
    for size in (0, 1000):
        for name in ("eval", "export", "report"):
            typed, out = ELSEWHERE[name]
            yield reader(f"{name} with files of {size}", typed, out, inside=narrow(size))
    for name, place in (("report", "/dev/full"), ("report", "HERE/aside"), ("export", "/dev/full"),
                        ("eval", "/dev/null"), ("eval", "HERE/made/a"), ("export", "HERE/made/a")):  # fmt: skip
        typed, out = WRITERS[name]
        yield reader(f"{name} --out {place}", f"{typed} --out {place}", out, shell("touch HERE/made"), again=typed)


def reader(
    name: str,
    text: str,
    out: str,
    harm: Act = nothing,
    inside: Act = nothing,
    mounts: bool = False,
    holds: bool | None = False,
    again: str = "",
    mend: Act = opened,
) -> Fault:
    """One of a whole run, which is carried out again when the fault is gone."""

    def typed(said: str) -> Callable[[Site], list[str]]:
        return lambda site: [spelled(site, word) for word in said.split()]

    mend = room if mounts else mend
    return Fault("readers", name, typed(text), harm, inside, mend, None if mounts else 4, holds, mounts=mounts,
                 again=typed(again or text), out=lambda site: Path(spelled(site, out)),
                 says=lambda site: "" if "/dev/" in text else site.folder)  # fmt: skip


def _of_writer(name: str, typed: str, out: str) -> Iterator[Fault]:
    yield reader(f"{name} into a run that is read-only", typed, out, closed_tree, inside=unprivileged)
    yield reader(f"{name} into a run on a read-only disk", typed, out, read_only, mounts=True)
    yield reader(f"{name} into a run on a full disk", typed, out, full, mounts=True)
    yield reader(f"{name} into a run with room for a little", typed, out, nearly, mounts=True)
    place = "/".join(out.split("/")[:2])
    put = f"mkdir {place}" if "." in place else f"touch {place}"
    lies = shell(f"rm -rf {place}; {put}")
    yield reader(f"{name}, in whose place something lies", typed, out, lies, mend=shell(f"rm -rf {place}"))
    for size in (0, 1000):
        yield reader(f"{name} into a run, files of {size}", typed, out, inside=narrow(size))


def closed_tree(site: Site) -> None:
    """Take the right to write away, in all of the run."""
    os.system(f"chmod -R a-w {site.run}")


def on_disk(*harm: str) -> Act:
    """A run on a disk of its own, and harm to that."""

    def make(site: Site) -> None:
        disk()(site)
        lay(site, 4)
        for text in harm:
            assert os.system(spelled(site, text)) == 0

    return make


read_only = on_disk("mount -o remount,ro HERE/runs")
full = on_disk(fill())
nearly = on_disk(fill(8))
