"""Which device, and which number format it is fast in.

bfloat16 where the hardware multiplies it: NVIDIA GPUs from Ampere on, Apple's, and CPUs with AVX512-BF16, AMX or Arm's
BF16. Elsewhere it is emulated, and slower than float32 many times over; `auto` means float32 there.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from opd.devices.threads import threads
from opd.types import UserError

NARROW = ("", "DEFAULT", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")
"""Values of ONEDNN_MAX_CPU_ISA that leave oneDNN its bfloat16 instructions; those with AMX in their name do too."""
SMALL, LARGE = (64, 576, 1536), (8192, 4096, 4096)
"""Rows, inputs and outputs of the linear layer that is timed: of SmolLM2-135M, and what fills a GPU, of Qwen3-8B."""


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU; UserError for one that this machine does not have."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError, AttributeError, ValueError) as e:  # each kind has its own way
        why = (str(e) or type(e).__name__).splitlines()[0]
        raise UserError(f"device={device}: torch has no such device here ({why}); allowed are auto, cpu, cuda:0") from e
    return torch.device(device)


def pick_dtype(dtype: str, device: str | torch.device = "auto") -> torch.dtype:
    """A dtype by its name; `auto` is bfloat16 where the device multiplies it in hardware, else float32."""
    if dtype == "auto":
        at = pick_device(device) if isinstance(device, str) else device
        return torch.bfloat16 if multiplies_bfloat16(at.type) else torch.float32
    found: torch.dtype = getattr(torch, dtype)
    return found


def dtype_name(dtype: str, device: str = "auto") -> str:
    """What `dtype` is on a device, by its name."""
    return str(pick_dtype(dtype, device)).removeprefix("torch.")


@functools.cache
def multiplies_bfloat16(kind: str) -> bool:
    """Whether devices of a kind (`cpu`, `cuda`, `mps`) have instructions for bfloat16 products, by what they say."""
    if kind == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if kind != "cpu":
        return kind == "mps"
    if platform.machine().lower() in ("arm64", "aarch64"):
        return platform.system() == "Darwin" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or (isa not in NARROW and "AMX" not in isa):
        return False  # what the processor could do, torch was told to leave alone
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def speed(dtype: str, device: torch.device, seconds: float = 0.3) -> float:
    """GFLOP/s of a linear layer forward and backward in a dtype, the best of several tries within `seconds`."""
    rows, inputs, outputs = SMALL if device.type == "cpu" else LARGE
    x, w = (torch.randn(n, inputs, device=device).to(pick_dtype(dtype)).requires_grad_() for n in (rows, outputs))
    best, end = 0.0, time.perf_counter() + seconds
    for tries in range(1000):
        if tries >= 2 and time.perf_counter() > end:  # the first one warms up
            break
        begun = time.perf_counter()
        (x @ w.T).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 6 * rows * inputs * outputs / (time.perf_counter() - begun) / 1e9)
    return best


def settled(settings: Any, auto: str | None = None) -> Any:
    """The same settings with every `dtype: auto` in them, however deep, replaced by `auto`, or what is fast here.

    A run writes them down: it goes on as it began, also on another machine.
    """

    def decide(now: Mapping[str, Any]) -> Mapping[str, Any]:
        if now.get("dtype") == "auto":
            with suppress(UserError):  # planned for another machine, which will know
                return {"dtype": auto or dtype_name("auto", now.get("device", "auto"))}
        return {}

    return everywhere(settings, decide)


def everywhere(settings: Any, decide: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Any:
    """The same settings with what `decide` makes of each dataclass's fields, however deep it lies in them."""
    if is_dataclass(settings) and not isinstance(settings, type):
        now = {f.name: getattr(settings, f.name) for f in fields(settings) if f.init}
        new = {name: everywhere(value, decide) for name, value in now.items()}
        new |= decide(new)
        changed = {name: value for name, value in new.items() if value is not now[name]}
        return replace(settings, **changed) if changed else settings
    if isinstance(settings, Mapping):
        inner = {name: everywhere(value, decide) for name, value in settings.items()}
        return inner if any(inner[k] is not settings[k] for k in inner) else settings
    if isinstance(settings, list | tuple):
        items = [everywhere(value, decide) for value in settings]
        changed_any = any(new is not old for new, old in zip(items, settings, strict=True))
        return type(settings)(items) if changed_any else settings
    return settings


def emulated(settings: Any, path: str = "") -> Iterator[str]:
    """A warning for each part of some settings that computes in 16 bits where these are emulated, with the factor."""
    if is_dataclass(settings) and not isinstance(settings, type):
        now = {f.name: getattr(settings, f.name) for f in fields(settings) if f.init}
        device = pick_device(str(now.get("device", "auto")))
        if now.get("dtype") in ("bfloat16", "float16") and device.type == "cpu" and not multiplies_bfloat16("cpu"):
            yield (
                f"{path}.dtype={now['dtype']}: this processor has no instructions for it; products of a training step "
                f"take {slowdown(now['dtype']):.0f} times as long as in float32 (measured now), which auto would choose"
            )
    else:
        now = dict(settings) if isinstance(settings, Mapping) else {}
    for name, value in now.items():
        yield from emulated(value, f"{path}.{name}".lstrip("."))


@functools.cache
def slowdown(dtype: str) -> float:
    """How many times longer than in float32 a linear layer takes in `dtype` on this CPU, measured once."""
    cpu = torch.device("cpu")
    with threads(1):  # whatever else is running
        return speed("float32", cpu) / speed(dtype, cpu)
