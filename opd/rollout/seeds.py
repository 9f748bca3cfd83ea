"""The seeds of single requests."""

from __future__ import annotations

from opd.types import Sampling


def request_seeds(sampling: Sampling, count: int) -> list[int]:
    """Derive the seeds of the `count` requests of a call, each a 63-bit integer.

    Every seed depends on `sampling.seed` and on the request's place in the whole call only, so that a request draws the
    same noise whatever else is in the batch and whoever draws it, and neighbouring seeds share nothing.
    """
    import numpy as np

    places = sampling.places or range(count)
    assert len(places) == count
    words = [np.random.SeedSequence((sampling.seed, place)).generate_state(1, np.uint64)[0] for place in places]
    return [int(word) >> 1 for word in words]
