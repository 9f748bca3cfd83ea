"""What all ranks under torchrun have to say is said by one of them: each prints where the launcher does."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from datetime import timedelta
from importlib import import_module
from typing import Any

WAIT = 10.0
"""Seconds in which the first rank has come to the same end as another one, or will not."""
REACHED = 3.0
"""Seconds in which torchrun's store answers."""


def say(words: str) -> None:
    """Print on stderr; not where the first rank says the same, or the first has nothing to say, and another one does.

    Ranks learn of it by the store of torchrun's agent: those that do not start are in no group yet.
    """
    first = os.environ.get("RANK", "0") == "0"
    if first:
        print(words, file=sys.stderr, flush=True)  # before torch is imported
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        try:
            if said_by_another(words, first):
                return
        except Exception:  # whatever keeps it from knowing: better twice than never
            pass
    if not first:
        print(words, file=sys.stderr, flush=True)


def said_by_another(words: str, first: bool) -> bool:
    """Whether some other rank prints the same; the others wait a while for the first one, which waits for none."""
    distributed: Any = import_module("torch.distributed")
    at = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = distributed.TCPStore(*at, is_master=False, timeout=timedelta(seconds=REACHED))
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = f"opd/said/{again}/{hashlib.blake2b(words.encode()).hexdigest()}"
    last = time.monotonic() + (0 if first else WAIT)
    while time.monotonic() < last and not store.check([key]):
        time.sleep(0.1)
    return bool(store.add(key, 1) > 1)
