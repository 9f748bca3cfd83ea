"""What has to be set before torch is imported; standard library only."""

from __future__ import annotations

import logging
import os

from opd.hints import printable


def prepare() -> None:
    """Let waiting threads sleep, and keep the noise of libraries away."""
    # Threads that spin while they wait take the cores from each other and from other programs: with anything else
    # running, every parallel region of a small model then costs a scheduler's slice.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for noisy in ("torchao", "bitsandbytes", "torch.utils._pytree"):  # which kernels cannot be loaded, on every import
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if logging.lastResort is not None:  # what is warned of may quote a server, a file or a model
        logging.lastResort.setFormatter(Printable())


def without_bars() -> None:
    """Have libraries draw no progress bars, in a process that is `opd`'s own: its console says what takes a while."""
    for library in ("HF_HUB", "HF_DATASETS"):
        os.environ.setdefault(f"{library}_DISABLE_PROGRESS_BARS", "1")


class Printable(logging.Formatter):
    """A warning as a terminal may have it."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, with what would drive a terminal spelled out."""
        return printable(super().format(record), keep="\n\t")
