"""Folders that are moved, removed or replaced, before a run and while it goes on, and those without rights."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.sites import Act, Fault, Site, harmed, nothing, spelled

CAPABILITIES = 0x20080522
"""Version of the structures that Linux's capset() reads."""


def faults() -> Iterator[Fault]:
    """All of them."""
    yield from _replaced()
    yield from _in_mid_run()
    yield from _rights()


def shell(text: str) -> Act:
    """A shell's command, with RUN for the run's folder and HERE for the case's."""
    return lambda site: os.system(spelled(site, text))


def _replaced() -> Iterator[Fault]:
    """What lies in the way before a command begins."""

    def resumed(name: str, harm: str, mend: str, holds: bool | None = False) -> Fault:
        return Fault("replaced", f"{name}, resumed", Site.resume, shell(harm), mend=shell(mend), steps=2, holds=holds)

    def new(name: str, harm: str, mend: str, holds: bool | None = False) -> Fault:
        return Fault("replaced", f"{name}, new", Site.train, shell(harm), mend=shell(mend), holds=holds)

    away = "rm -rf RUN/{0}; rm -f RUN/{0}"
    for name in ("metrics.jsonl", "overrides.txt", "env.json"):
        harm = f"{away.format(name)}; mkdir -p RUN/{name}/a"
        yield resumed(f"{name} is a folder", harm, away.format(name), holds=None)
    for name in ("rollouts", "eval", "checkpoints"):
        keep = f"cp -r RUN/{name} HERE/aside/{name}; {away.format(name)}; touch RUN/{name}"
        yield resumed(f"{name} is a file", keep, f"{away.format(name)}; mv HERE/aside/{name} RUN/{name}", holds=None)
        link = f"cp -r RUN/{name} HERE/aside/{name}; {away.format(name)}; ln -s HERE/nowhere RUN/{name}"
        mend = f"{away.format(name)}; mv HERE/aside/{name} RUN/{name}"
        yield resumed(f"{name} leads nowhere", link, mend, holds=None)
        link = f"mv RUN/{name} HERE/aside/{name}; ln -s HERE/aside/{name} RUN/{name}"
        yield resumed(f"{name} is a link", link, ":", holds=True)
    for name in ("metrics.jsonl", "config.yaml"):
        link = f"mv RUN/{name} HERE/aside/{name}; ln -s HERE/aside/{name} RUN/{name}"
        yield resumed(f"{name} is a link", link, ":", holds=True)
    yield resumed("metrics.jsonl is a full device", "ln -sf /dev/full RUN/metrics.jsonl", "rm RUN/metrics.jsonl", None)
    yield resumed("overrides.txt is a full device", "ln -sf /dev/full RUN/overrides.txt", "rm RUN/overrides.txt", None)
    yield resumed("the run is a link", "mv RUN HERE/aside/run; ln -s HERE/aside/run RUN", ":", holds=True)
    yield resumed("the owner's mark is a folder", "mkdir RUN/.owner", "rmdir RUN/.owner")
    yield resumed("the owner's mark leads nowhere", "ln -s HERE/no/where RUN/.owner", "rm RUN/.owner", holds=None)
    yield new("the run is a file", "touch RUN", "rm RUN")
    yield new("the run leads nowhere", "ln -s HERE/nowhere RUN", "rm RUN; rm -rf HERE/nowhere", holds=None)
    yield new("the run is a link to an empty folder", "ln -s HERE/aside RUN", ":", holds=True)
    yield new("the runs are a file", "rmdir HERE/runs; touch HERE/runs", "rm HERE/runs")
    yield new("the runs are a link in a circle", "rmdir HERE/runs; ln -s runs HERE/runs", "rm HERE/runs")


def _in_mid_run() -> Iterator[Fault]:
    """What is moved or removed while a run goes on: before its first checkpoint, and after."""
    ways = {
        "the run is moved away": ("mv RUN HERE/aside/gone", "rm -rf RUN; mv HERE/aside/gone RUN"),
        "the run is removed": ("rm -rf RUN", "rm -rf RUN"),
        "the run is a file": ("mv RUN HERE/aside/gone; touch RUN", "rm -rf RUN; mv HERE/aside/gone RUN"),
        "the run is another folder": ("mv RUN HERE/aside/gone; mkdir RUN", "rm -rf RUN; mv HERE/aside/gone RUN"),
        "the run is moved, and a link":
            ("mv RUN HERE/aside/gone; ln -s HERE/aside/gone RUN", "rm -f RUN; mv HERE/aside/gone RUN"),
        "the runs are removed": ("rm -rf HERE/runs", "mkdir -p HERE/runs"),
        "its checkpoints are removed": ("rm -rf RUN/checkpoints", ":"),
        "its checkpoints are a file": ("rm -rf RUN/checkpoints; touch RUN/checkpoints", "rm -f RUN/checkpoints"),
        "its checkpoints lead nowhere":
            ("rm -rf RUN/checkpoints; ln -s HERE/no RUN/checkpoints", "rm -f RUN/checkpoints"),
        "its rollouts are removed": ("rm -rf RUN/rollouts", ":"),
        "its rollouts are a file": ("rm -rf RUN/rollouts; touch RUN/rollouts", "rm -f RUN/rollouts"),
        "its evaluations are a file": ("rm -rf RUN/eval; touch RUN/eval", "rm -f RUN/eval"),
        "its metrics are a folder": ("rm -f RUN/metrics.jsonl; mkdir RUN/metrics.jsonl", "rm -rf RUN/metrics.jsonl"),
        "its metrics lead nowhere":
            ("rm -f RUN/metrics.jsonl; ln -s HERE/no/where RUN/metrics.jsonl", "rm -f RUN/metrics.jsonl"),
        "its config is removed": ("mv RUN/config.yaml HERE/aside/c", "mv HERE/aside/c RUN/config.yaml"),
        "its owner's mark is removed": ("rm RUN/.owner", ":"),
        "the temporary folder is removed": ("rm -rf HERE/tmp", "mkdir -p HERE/tmp"),
        "home is removed": ("rm -rf HERE/home", "mkdir -p HERE/home"),
    }  # fmt: skip
    for name, (harm, mend) in ways.items():
        for call in (3, 5):
            typed = harmed(harm, call)
            yield Fault("in mid-run", f"{name} at judgement {call}", typed, mend=shell(mend), holds=None)


def unprivileged(site: Site) -> None:
    """Leave the administrator no more rights than the owner of a file has."""
    if os.geteuid() == 0:
        head, body = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None, use_errno=True).capset(head, body):
            raise OSError(ctypes.get_errno(), "capset")


def closed(place: str, mode: int = 0o555) -> Act:
    """Take the right to write in a place away."""
    return lambda site: Path(spelled(site, place)).chmod(mode)


def opened(site: Site) -> None:
    """Give all rights back."""
    os.system(f"chmod -R u+rwX {site.folder}")


def _rights() -> Iterator[Fault]:
    def one(
        name: str, typed: Callable[[Site], list[str]], harm: Act, steps: int | None, holds: bool | None = False
    ) -> Fault:
        return Fault("rights", name, typed, harm, unprivileged, opened, steps, holds)

    yield one("a new run where nothing may be written", Site.train, closed("HERE/runs"), None)
    yield one("a new run where nothing may be read", Site.train, closed("HERE/runs", 0), None)
    for place in ("RUN", "RUN/checkpoints", "RUN/rollouts", "RUN/checkpoints/step_000002"):
        yield one(f"resumed, no writing in {place}", Site.resume, closed(place), 2, holds=None)
    of_step = [f"RUN/checkpoints/step_000002/{name}" for name in ("state.json", "manifest.json", "model")]
    for place in ("RUN", "RUN/checkpoints", "RUN/config.yaml", "RUN/metrics.jsonl", *of_step):
        yield one(f"resumed, no reading of {place}", Site.resume, closed(place, 0), 2, holds=None)
    for place in ("RUN/metrics.jsonl", "RUN/config.yaml", "RUN/overrides.txt"):
        yield one(f"resumed, {place} is read-only", Site.resume, closed(place, 0o444), 2, holds=None)
    for place in ("RUN", "RUN/checkpoints", "RUN/rollouts", "RUN/metrics.jsonl"):
        for call in (3, 5):
            typed = harmed(f"chmod -f a-w {place} || true", call)
            yield one(f"no more writing in {place} from judgement {call} on", typed, nothing, None, holds=None)
