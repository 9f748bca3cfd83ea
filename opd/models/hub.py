"""Whether a hub answers: asked once, so that one that does not is not waited for, file after file, try after try."""

from __future__ import annotations

import functools
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

REMEMBERED = 60
"""Seconds after which it is asked again: who mends a network need not start anew."""


@contextmanager
def asked(name: str) -> Iterator[None]:
    """Inside, a hub is asked for `name` if it answers; else what is in its cache here is all that there is.

    Without this huggingface_hub tries each file six times, and 23 seconds and more go by.
    """
    if Path(name).is_dir() or answers():
        yield
    else:
        with offline():
            yield


def answers() -> bool:
    """Whether the hub answers in `HF_HUB_ETAG_TIMEOUT` seconds (10); no, where `HF_HUB_OFFLINE` is set."""
    from huggingface_hub import constants

    now = int(time.monotonic() // REMEMBERED)
    return not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT, constants.HF_HUB_ETAG_TIMEOUT, now)


@functools.lru_cache(maxsize=1)
def _answers(endpoint: str, seconds: int, now: int) -> bool:
    """The same; the answer holds for one value of `now`."""
    try:  # not through the hub's own client, which tries again and again
        with urlopen(Request(endpoint, method="HEAD"), timeout=seconds):
            return True
    except HTTPError:  # an answer
        return True
    except URLError as error:
        return isinstance(
            error.reason, ssl.SSLError
        )  # it has other certificates than Python, which the client may know
    except OSError:
        return False


@contextmanager
def offline() -> Iterator[None]:
    """Inside, no hub is asked: what is in its cache is all that there is."""
    from huggingface_hub import constants

    places: list[Any] = [constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
