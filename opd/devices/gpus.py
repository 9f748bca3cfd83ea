"""Which GPUs a process may use, without importing torch, which would make a context on one of them."""

from __future__ import annotations

import os
import subprocess

from opd.types import UserError


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


def count_gpus() -> int:
    """How many there are."""
    return len(visible_gpus())


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
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place]
