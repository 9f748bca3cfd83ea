"""Which of several processes this one is, as whoever started them (torchrun, srun, `opd.devices.launch`) told it."""

from __future__ import annotations

import os

from opd.types import UserError

RANK, SIZE, HERE, HERE_OF = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
"""Variables: which of all processes it is and of how many, and the same among those on its machine."""
HOST, PORT, STORE = "MASTER_ADDR", "MASTER_PORT", "OPD_STORE"
"""Variables that say where they meet: on a machine's port, or in a place of its own of `opd.devices.launch`."""


def number(name: str) -> int | None:
    """What a variable says; None where it is not set. UserError where that cannot be."""
    if (told := os.environ.get(name)) is None:
        return None
    least, most = int(name in (SIZE, HERE_OF, PORT)), 65535 if name == PORT else 10**6
    if not (told.isascii() and told.isdigit() and least <= int(told[:9]) <= most):
        raise UserError(
            f"{name}={told[:40]!r}: allowed is a whole number from {least} to {most}; whoever starts several processes "
            f"(torchrun, srun) sets this variable: start them with it, or unset {name}"
        )
    return int(told)


def meeting() -> str:
    """Where they meet, as an address that torch understands; UserError where nobody has said."""
    if store := os.environ.get(STORE):
        return store
    host, port = os.environ.get(HOST), number(PORT)
    if not host or port is None:
        raise UserError(f"{HOST}={host or ''} {PORT}={port or ''}: ranks meet at a port of rank 0's machine; set both")
    return "env://"  # torch reads the two


def started() -> bool:
    """Whether this process is one of several that were started to compute together; UserError for no rank of theirs."""
    if not ({RANK, SIZE} <= os.environ.keys() and not os.environ.keys().isdisjoint({HOST, STORE})):
        return False
    rank, size = number(RANK) or 0, number(SIZE) or 1
    if rank >= size:
        raise UserError(f"{RANK}={rank}: of {size} processes ({SIZE}) the ranks are 0 to {size - 1}; unset it")
    return True


def several() -> int:
    """How many were started so; 1: this process alone."""
    return (number(SIZE) or 1) if started() else 1


def other() -> int:
    """This process's rank where it is not the first of several that were started so; else 0."""
    return (number(RANK) or 0) if started() else 0


def first_here() -> bool:
    """Whether it is the first one on the machine that the first of all is on."""
    return (number(HERE) or 0) == (number(RANK) or 0)


def refuse_other(what: str) -> None:
    """UserError in all but the first of several processes, where one does it for all."""
    if rank := other():
        raise UserError(f"{what}: this is rank {rank} of {several()}, and one does it for all; call it where RANK is 0")


def refuse_several(what: str, instead: str = "") -> None:
    """UserError where several processes were started for what is one's: each would do it."""
    if (size := several()) > 1:
        raise UserError(
            f"{what}: {size} processes were started (WORLD_SIZE); {f'{instead}, or ' * bool(instead)}start one"
        )
