"""The seeds of single requests."""

from __future__ import annotations


def request_seeds(seed: int, count: int) -> list[int]:
    """Derive the seeds of requests 0 to `count` - 1 of a call, each a 63-bit integer.

    Every seed depends on `seed` and on the request's place only, so that a request draws the same noise whatever else
    is in the batch, and neighbouring `seed`s share nothing.
    """
    import numpy as np

    words = [np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)[0] for place in range(count)]
    return [int(word) >> 1 for word in words]
