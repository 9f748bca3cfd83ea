"""Homes and caches that are none, odd names, umasks and locales: what a run need not care about, or says."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.faults.checkpoints import config_of_its_own
from tests.faults.disk_gone import closed, opened, shell, unprivileged
from tests.faults.disk_readers import WRITERS, reader
from tests.faults.disk_room import narrow
from tests.faults.sites import Act, Fault, Site, harmed, nothing, spelled

NAMES = ("l\u00e4uft \u6587", "a b", "a'b", 'a"b', "a\nb", "a%sb", "a{b}", "$HOME", "a=b", "a,b", "[a]", "~", "-q",
         "a" * 255, "a" * 256, "\udcff\udcfe", "\u202eevil", "*", "step_000001", "a\\b")  # fmt: skip
"""Of a run's folder."""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale in which Python itself reads and writes nothing else."""


def faults() -> Iterator[Fault]:
    """All of them."""
    yield from _homes()
    yield from _names()
    yield from _umasks()
    yield from _parts()


def environment(**values: str) -> Act:
    """Set variables, with no more rights than an owner has."""

    def inside(site: Site) -> None:
        unprivileged(site)
        for name, value in values.items():
            os.environ[name] = spelled(site, value)

    return inside


def _homes() -> Iterator[Fault]:
    def train(name: str, inside: Act, harm: Act = nothing, own: bool = True, mend: Act = opened) -> Fault:
        return Fault("homes", name, Site.train, harm, inside, mend, holds=True, own=own)

    def unset(site: Site) -> None:
        os.environ.pop("HOME", None)

    def gone(site: Site) -> None:
        place = site.folder / "cwd"
        place.mkdir()
        os.chdir(place)
        place.rmdir()

    yield train("no home", unset)
    yield train("a home that is not there", environment(HOME="HERE/no/home"))
    yield train("a home that is a file", environment(HOME="HERE/aside/file"), shell("touch HERE/aside/file"))
    yield train("a home that nobody may write in", environment(), closed("HERE/home"))
    yield train("a home that nobody may read", environment(), closed("HERE/home", 0))
    yield train("no temporary folder", environment(TMPDIR="HERE/no/tmp"))
    yield train("a temporary folder that nobody may write in", environment(), closed("HERE/tmp"))
    caches = {"HF_HOME": "HERE/cache", "XDG_CACHE_HOME": "HERE/cache", "OPD_CACHE": "HERE/cache"}
    yield train(
        "caches that nobody may write in", environment(**caches), shell("mkdir HERE/cache; chmod a-w HERE/cache")
    )
    yield train("caches that are files", environment(**caches), shell("touch HERE/cache"))
    yield train("caches that are not there", environment(**caches))
    for own in (True, False):
        name = f"a folder to work in that is gone{', forked' * (not own)}"
        yield Fault("homes", name, Site.train, inside=gone, own=own, says=lambda site: "the folder that you are in")
    yield train("no room for temporary files", environment(TMPDIR="/dev/full"))


def _names() -> Iterator[Fault]:
    def named(name: str, own: bool = False, **values: str) -> Fault:
        def typed(site: Site) -> list[str]:
            return [text.replace(f"run={site.run}", f"run={site.runs}/{name}") for text in site.train()]

        kind = "a locale of ASCII, " if values else ""
        shown = ascii(name) if len(name) < 20 else f"{len(name)} letters"
        return Fault("names", f"{kind}{shown}", typed, inside=environment(**values), holds=None, own=own,
                     says=lambda site: "run=")  # fmt: skip

    yield from (named(name) for name in NAMES)
    for name in (NAMES[0], "run"):
        yield named(name, own=True, **ASCII)


def _umasks() -> Iterator[Fault]:
    for mask in (0o077, 0o027, 0o022, 0o002):
        kept = partial(unlike, mask=mask)
        yield Fault("umasks", f"train, {mask:03o}", Site.train, inside=masked(mask), holds=True, check=kept)
    for name, (typed, out) in WRITERS.items():
        for mask in (0o077, 0o002):
            case = reader(f"{name}, {mask:03o}", typed, out, inside=masked(mask), holds=True)
            place = out.rpartition("/")[0] if name == "export" else out
            yield replace(case, group="umasks", check=partial(unlike, mask=mask, place=place))


def masked(mask: int) -> Act:
    """Set the umask."""
    return lambda site: os.umask(mask)


def unlike(site: Site, mask: int, place: str = "RUN") -> Iterator[str]:
    """Files and folders whose rights are not those that the umask leaves."""
    there = Path(spelled(site, place))
    for path in [there, *there.rglob("*")]:
        have, due = stat.S_IMODE(path.lstat().st_mode), (0o777 if path.is_dir() else 0o666) & ~mask
        if have != due:
            yield f"{path.relative_to(site.folder)} has {have:o}, and the umask leaves {due:o}"


def _parts() -> Iterator[Fault]:
    """What teachers, trackers and engines write, and what is kept for all runs."""

    def cached(site: Site) -> list[str]:
        config = site.folder / "cached.yaml"
        shutil.copy(site.made.config, config)
        teacher = next(line for line in config.read_text().splitlines() if line.startswith("teacher:"))
        model = teacher.partition("model: ")[2].partition(",")[0]
        own = [f"teacher.teacher.model={model}", "teacher.teacher.dtype=float32", "teacher.teacher.prompt=student"]
        given = [text for text in site.train(*own, f"teacher.path={site.folder}/kept") if not text.startswith("conf=")]
        return [given[0], config_of_its_own(config, "teacher=cached"), *given[1:]]

    kept = "a cache of a teacher's words"
    yield Fault("parts", f"{kept} without room", cached, inside=narrow(1500))
    yield Fault("parts", f"{kept} that nobody may write in", cached, shell("mkdir HERE/kept; chmod a-w HERE/kept"),
                unprivileged, opened)  # fmt: skip
    yield Fault("parts", f"{kept} that is a file", cached, shell("touch HERE/kept"), mend=shell("rm HERE/kept"))

    def tracked(site: Site) -> list[str]:
        return site.train("log=tensorboard", "log.rollouts_every=0")

    for size in (0, 100, 5000):
        yield Fault("parts", f"TensorBoard's files of {size}", tracked, inside=narrow(size), holds=None)
    gone = "rm -rf RUN/tensorboard; touch RUN/tensorboard"
    yield Fault("parts", "TensorBoard's folder is removed", harmed(gone, 4, "log=tensorboard"), holds=None)

    def beside(site: Site) -> list[str]:
        return site.train("devices=apart", "devices.ahead=0")

    for name, place in (("shared memory", "/dev/shm"), ("a temporary folder", "HERE/tmp")):
        for harm in ("", ",ro"):
            text = f"mount -t tmpfs -o size=4k{harm} none {place}; head -c 5000 /dev/zero > {place}/filler"
            yield Fault("parts", f"engines apart, {name} {'that is read-only' if harm else 'without room'}", beside,
                        shell(text), mend=shell(f"umount {place}"), holds=True, own=True, mounts=True)  # fmt: skip

    def made(site: Site) -> list[str]:
        return ["plan", "conf=quickstart", "teacher.model.steps=1", "--gpu", "h100"]

    def copied(site: Site) -> list[str]:
        return ["config", "cp", "quickstart", f"{site.runs}/mine.yaml"]

    for size in (0, 100):
        yield Fault("parts", f"a config's copy of {size}", copied, inside=narrow(size),
                    out=lambda site: site.runs / "mine.yaml")  # fmt: skip
    yield Fault("parts", "a config's copy where nothing may be written", copied, closed("HERE/runs"), unprivileged,
                opened, out=lambda site: site.runs / "mine.yaml")  # fmt: skip
    yield Fault("parts", "a plan without a file", made, inside=narrow(0), holds=None)
