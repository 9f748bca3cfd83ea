"""What has to be set before torch is imported; standard library only."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from opd.hints import printable

KERNELS = 256
"""Compiled products that oneDNN and torch's side of it keep each, in place of 1024: a micro-batch of a model meets some
dozens, over and over in its layers, and the next one has other shapes. All 1024 of both took 590 MiB in bfloat16."""


def prepare() -> None:
    """Let waiting threads sleep, and keep unused kernels and the noise of libraries away."""
    # Threads that spin while they wait take the cores from each other and from other programs: with anything else
    # running, every parallel region of a small model then costs a scheduler's slice.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for capacity in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(capacity, str(KERNELS))
    for noisy in ("torchao", "bitsandbytes", "torch.utils._pytree"):  # which kernels cannot be loaded, on every import
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if logging.lastResort is not None:  # what is warned of may quote a server, a file or a model
        logging.lastResort.setFormatter(Printable())


def hush(debug: bool = False) -> None:
    """Keep libraries' progress bars and warnings to developers away, in a process that is `opd`'s own.

    Its console says what takes a while, and what people can mend. `debug` leaves all, Python's `-W` warnings.
    """
    if debug:
        return
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


class Printable(logging.Formatter):
    """A warning as a terminal may have it."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, with what would drive a terminal spelled out."""
        return printable(super().format(record), keep="\n\t")
