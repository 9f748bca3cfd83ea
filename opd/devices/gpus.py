"""Which GPUs a process may use, without importing torch, which would make a context on one of them."""

from __future__ import annotations

import os
import subprocess

from opd.types import UserError

GPUS = "OPD_GPUS"
"""The environment variable that keeps the names of a machine's GPUs in a process that sees one of them."""


def visible_gpus() -> list[str]:
    """Names of the NVIDIA GPUs as CUDA_VISIBLE_DEVICES has them, else the numbers of those that `nvidia-smi` finds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))  # CUDA reads no further
        return names[:end]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def machine_gpus() -> list[str]:
    """Those that this process saw before it was given one of its own, where it was; else those that it sees."""
    before = os.environ.get(GPUS)
    return before.split(",") if before else visible_gpus()


def count_gpus() -> int:
    """How many are visible."""
    return len(visible_gpus())


def refuse_fewer_gpus(gpus: int, ranks: int, engines: int, each: int) -> None:
    """UserError where this machine has GPUs, but not one for each rank, and so many for `each` engine that is apart."""
    if 0 < gpus < ranks + engines * each:
        spread = f" devices.tensor_parallel={each}" if each > 1 else ""
        raise UserError(
            f"devices.ranks={ranks} devices.engines={engines}{spread}: that is {ranks + engines * each} GPUs on this "
            f"machine, and {gpus} can be seen here (CUDA_VISIBLE_DEVICES); take fewer, or let every process see all of "
            "them"
        )


def see_one_gpu(place: int, ranks: int) -> None:
    """Let this process see the GPU at its place among the `ranks` of this machine, which all of it calls the first one.

    vLLM takes the first that it sees. Has to come before torch asks for its GPUs.

    Raises:
        UserError: There are more ranks here than GPUs.
    """
    gpus = visible_gpus()
    if 1 < len(gpus) < ranks:
        raise UserError(f"devices.ranks: {ranks} on a machine of {len(gpus)} GPUs; allowed is one rank for each")
    if len(gpus) > 1:
        os.environ[GPUS] = ",".join(gpus)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place]
