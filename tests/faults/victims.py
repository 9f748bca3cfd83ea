"""Who can be killed in a run of several processes, and what has to hold afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.run import STEPS, Start, Started, forked, opd, steps, until

HALF_A_MINUTE = 30.0
GONE = 60.0
"""Seconds after which a run that has lost a rank has ended, whatever happens."""


@dataclass(frozen=True)
class Victim:
    """A process of a run."""

    name: str
    find: Callable[[Started], int]
    """Its number; 0: not there yet, or no more."""
    aftermath: Callable[[Started, Path], Iterator[str]]
    """What is not as it should be, of a run that is over or has to be soon."""


@dataclass(frozen=True)
class Layout:
    """Settings of a run on several processes, and these."""

    settings: Sequence[str]
    victims: Sequence[Victim]
    start: Start = opd
    seconds: float = 0.3
    """That a step takes at least."""


def ranks_of(count: int) -> list[Victim]:
    """Equal ranks, and their launcher."""

    def rank(number: int) -> Victim:
        who = f"rank {number}"
        return Victim(who, lambda run: run.rank(number), lambda run, at: named(run, at, f"{who} of {count}"))

    return [*map(rank, range(count)), Victim("launcher", lambda run: run.process.pid, alone)]


def engines_of(count: int, limit: float) -> list[Victim]:
    """Engines in processes of their own."""

    def engine(number: int) -> Victim:
        which = f"engine {number + 1} of {count}"
        return Victim(which, lambda run: run.engine(number), lambda run, at: unharmed(run, at, which, limit))

    return [*map(engine, range(count))]


def single(count: int, limit: float) -> Layout:
    """A run in one process."""
    return Layout((), [Victim("the run", lambda run: run.process.pid, alone)], forked, 0.05)


def on_ranks(count: int, limit: float) -> Layout:
    """Equal ranks under a launcher."""
    return Layout(("devices=ranks", f"devices.ranks={count}", "devices.timeout=60"), ranks_of(count))


def apart(count: int, limit: float) -> Layout:
    """A learner, and engines that write a step ahead of it."""
    settings = ("devices=apart", f"devices.engines={count}", "devices.ahead=1")
    return Layout(settings, [*engines_of(count, limit), Victim("learner", lambda run: run.process.pid, alone)])


def fleet(count: int, limit: float) -> Layout:
    """As many ranks as engines, which write a step ahead of them."""
    settings = ("devices=apart", f"devices.ranks={count}", f"devices.engines={count}", "devices.ahead=1")
    return Layout((*settings, "devices.timeout=120"), [*ranks_of(count), *engines_of(count, limit)])


def named(run: Started, at: Path, who: str) -> Iterator[str]:
    """It ends by itself, soon, and says who was killed and how to go on; or all was done when that happened."""
    begun = time.monotonic()
    code, err = run.end(GONE)
    if run.left:
        yield f"{len(run.left)} processes are left"
    if code == 0 and not err and steps(at) == STEPS:
        return
    if code != 1:
        yield f"exit code {code}"
    on = f"opd train --resume run={at}" if any((at / "checkpoints").glob("step_*")) else "no checkpoint"
    err = [text for text in err if not text.startswith("warning: ")]  # an engine was started again before
    if len(err) != 1 or not err[0].startswith(f"opd: {who} was killed by SIGKILL; ") or on not in err[0]:
        yield f"stderr: {err}"
    if time.monotonic() - begun > HALF_A_MINUTE:
        yield "it took more than half a minute"


def alone(run: Started, at: Path) -> Iterator[str]:
    """Whoever started the others is gone: none of them stays."""
    run.end(GONE)
    if not until(lambda: not run.left, HALF_A_MINUTE / 2):
        yield f"{len(run.left)} processes outlived it"


def unharmed(run: Started, at: Path, who: str, limit: float) -> Iterator[str]:
    """The run goes on to its end as if nothing had been; one that had not begun may end, and says who did not start."""
    begun = steps(at) >= 0
    code, err = run.end(limit)
    if run.left:
        yield f"{len(run.left)} processes are left"
    stillborn = not begun and code == 1 and len(err) == 1 and f"{who} did not start" in err[0]
    if code and not stillborn:
        yield f"exit code {code}, stderr: {err}"
