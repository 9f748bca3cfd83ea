"""What has to be set before torch is imported; standard library only."""

from __future__ import annotations

import logging
import os


def prepare() -> None:
    """Let waiting threads sleep, and keep the noise of libraries away."""
    # Threads that spin while they wait take the cores from each other and from other programs: with anything else
    # running, every parallel region of a small model then costs a scheduler's slice.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for noisy in ("torchao", "torch.utils._pytree"):  # which of its kernels torchao cannot load here, on every import
        logging.getLogger(noisy).setLevel(logging.ERROR)
