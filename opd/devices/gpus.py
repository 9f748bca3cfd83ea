"""How many GPUs a process may use, without importing torch, which would make a context on one of them."""

from __future__ import annotations

import os
import subprocess


def count_gpus() -> int:
    """As many NVIDIA GPUs as CUDA_VISIBLE_DEVICES names, else as `nvidia-smi` finds; 0 where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))  # CUDA reads no further
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())
