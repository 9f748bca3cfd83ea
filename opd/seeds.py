"""All randomness comes from one seed: every use derives its own number from it by name."""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: str | int, bits: int = 62) -> int:
    """A number in [0, 2**bits) for this seed and use; the same on every machine and in every process."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> (64 - bits)
