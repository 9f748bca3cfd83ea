"""Memory that is refused, in every phase and as every library says it, and counts that nobody has the memory for."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opd.run.checkpoint import checkpoints
from tests.faults.inputs import MEMORY, Ended, Place, command, listed, saved
from tests.faults.run import opd, same, weights
from tests.faults.verdict import said, table

HANGS = 30.0
"""Seconds that one may take, on top of what a run in processes of its own, or vLLM, takes to start."""
STARTING = 90.0
HUNGRY = "tests.faults.hungry.Hungry"
CALM = (
    "steps=2",
    "eval.every=0",
    "eval.size=2",
    "checkpoint.every=1",
    "preflight.prompts=2",
    "data.prompts_per_step=4",
)
AGAIN = r"warning: out of memory in update: the step was done again with optim.micro_tokens=(\d+), which stays"


@dataclass(frozen=True)
class Want:
    """A fault, and what is to be said of it."""

    group: str
    name: str
    overrides: tuple[str, ...]
    code: int = 1
    told: str = ""
    """What the line has to say: a regular expression."""
    like: tuple[str, ...] | None = None
    """A run that may do without: these settings, taken from the beginning, give the same weights to the bit."""
    memory: int = MEMORY
    """Bytes that the command may have beyond those of this process."""
    apart: bool = False
    """Whether it is started as a process of its own."""
    begun: bool = False
    """Whether a run is there by then, and stays."""
    command: str = "train"
    """Others are of a run that was trained without harm."""

    def __str__(self) -> str:
        return f"{self.group}, {self.name}"


def engine(way: str, at: int) -> tuple[str, ...]:
    return (f"rollout._target_={HUNGRY}Engine", f"+rollout.way={way}", f"+rollout.at={at}")


def teacher(way: str, call: str, at: int = 1) -> tuple[str, ...]:
    return (f"teacher._target_={HUNGRY}Teacher", f"+teacher.way={way}", f"+teacher.call={call}", f"+teacher.at={at}")


def objective(way: str, at: int = 1, *more: str) -> tuple[str, ...]:
    return (f"objective._target_={HUNGRY}Objective", f"+objective.way={way}", f"+objective.at={at}", *more)


def wants() -> Iterator[Want]:
    """All of them."""
    yield Want("load", "the engine", engine("python", 0), told=r"out of memory in setup \(engine\)")
    yield Want("load", "the learner, by the system", engine("limit", -1), told=r"out of memory in (setup|preflight)")
    yield Want("load", "the teacher", teacher("torch", "start"),
               told=r"out of memory in setup \(teacher\): .*set teacher.quantization=int8")  # fmt: skip
    yield Want("generate", "in the preflight", engine("cuda", 1),
               told=r"in preflight.*: tried to allocate 20.00 GiB")  # fmt: skip
    yield Want("generate", "in a step", engine("numpy", 5), begun=True,
               told=r"step 2: out of memory in generate: .*lower rollout.batch_size=256 to 4; the last")  # fmt: skip
    yield Want("score", "in the preflight", teacher("numpy", "score"), told=r"in preflight \(score\)")
    yield Want("score", "in a step", teacher("cuda", "score", 4), begun=True,
               told=r"step 2: out of memory in score: .*GiB; lower teacher.micro_tokens=8192 to \d+")  # fmt: skip
    yield Want("update", "once", objective("cuda", 1), 0, like=("optim.micro_tokens={}",),
               told=AGAIN)  # fmt: skip
    yield Want("update", "in the second step", objective("torch", 2), 0, told=AGAIN)
    yield Want("update", "always", objective("torch", 1, "+objective.always=true"), begun=True,
               told=r"gradients, one sequence\): .*lower sampling.max_tokens=8 to 4, or set student.gra")  # fmt: skip
    yield Want("update", "switched off", objective("cuda", 1, "optim.halving=false"), begun=True,
               told=r"1: out of memory in update \(gradients\): .*lower optim.micro_tokens=4096 to \d+")  # fmt: skip
    long = ("sampling.max_tokens=100", "sampling.n=64", "optim.micro_tokens=8192", "log.rollouts_every=0", "steps=1")
    system = objective("limit", 0, f"+objective.room={1 << 20}", *long)
    # In a process of its own: this one may have enough left over from what it did before.
    yield Want("update", "by the system", system, 0, told=AGAIN, like=(*long, "optim.micro_tokens={}"), apart=True)
    yield Want("eval", "before step 1", engine("torch", 3), begun=True, told=r"out of memory in eval")
    yield Want("eval", "its scores", teacher("python", "score", 2), begun=True, told=r"in eval \(score\)")
    for name, at in (("eval", 1), ("sample", 1), ("export", 0)):
        yield Want("eval", f"opd {name}", engine("torch", at), told="out of memory in ", begun=True, command=name)
    yield Want("checkpoint", "rehearsed", teacher("python", "state", 2), told=r"in preflight \(checkpoint\)")
    yield Want("checkpoint", "of a step", teacher("python", "state", 4), begun=True,
               told=r"step 2: out of memory in checkpoint")  # fmt: skip
    for megabytes in (16, 64, 128, 192, 256, 384):
        yield Want("limits", f"{megabytes} MiB", (), -1, memory=megabytes << 20)
    yield Want("counts", "1e11 samples", ("sampling.n=100000000000",), 2, told=r"sampling.n=100000000000: allowed is")
    yield Want("counts", "1e13 prompts", ("data.prompts_per_step=10000000000000",), 2, told=r"data.prompts_per_step=")
    yield Want("counts", "1e8 prompts of 1e8 samples", ("data.prompts_per_step=100000000", "sampling.n=100000000"), 2)
    yield Want("counts", "1e9 tokens", ("sampling.max_tokens=1000000000",), 2, told="sampling.max_tokens")
    yield Want("counts", "1e9 evaluated", ("eval.n=1000000000",), 2, told=r"eval.n=")
    yield Want("counts", "1e9 threads", ("rollout=vllm", "rollout.threads=1000000000"), 2, told="rollout.threads=")
    yield Want("counts", "1e9 ranks", ("devices=ranks", "devices.ranks=1000000000"), 2, told="devices.ranks=")
    yield Want("counts", "1e-7 GiB", ("rollout=vllm", "rollout.memory_gb=1e-7"), 2, told=r"rollout.memory_gb=1e-07: ")
    yield Want("counts", "1e9 GiB", ("rollout=vllm", "rollout.memory_gb=1e9"), 2, told=r"rollout.memory_gb=1000000000")
    vllm = ("rollout=vllm_tiny", "rollout.max_num_seqs=16")
    yield Want("vLLM", "a cache too large", (*vllm, "rollout.memory_gb=4000"), apart=True,
               told=r"out of memory in setup \(engine\): .*; lower rollout.memory_gb=4000 to \d+")  # fmt: skip
    yield Want("vLLM", "a cache too small", (*vllm, "rollout.memory_gb=0.0001", "sampling.max_tokens=300"), apart=True,
               told=r"out of memory in setup \(engine\): .*set rollout.memory_gb=")  # fmt: skip
    tight = (*vllm, "rollout.memory_gb=0.2", f"rollout._target_={HUNGRY}Vllm")
    yield Want("vLLM", "generates", (*tight, "+rollout.at=5", "+rollout.way=cuda"), apart=True, begun=True,
               told=r"step 2: out of memory in generate: .*lower rollout.max_num_seqs=16 to")  # fmt: skip
    yield Want(
        "vLLM", "generates, by the system", (*tight, "+rollout.at=5", "+rollout.way=limit"), -1, apart=True, begun=True
    )
    two = ("devices=ranks", "devices.ranks=2")
    yield Want("ranks", "one of two", (*two, *objective("cuda", 1, "+objective.rank=1")), apart=True, begun=True,
               told=r"step 1: out of memory in update \(gradients\)")  # fmt: skip
    away = ("devices=apart", "devices.ahead=1", *engine("numpy", 5))
    yield Want("apart", "an engine", (*away, "devices.restarts=0"), apart=True, begun=True,
               told=r"out of memory in .*generate.*lower rollout.batch_size=256 to 4")  # fmt: skip
    yield Want("apart", "an engine, started again", away, 0, apart=True,
               told=r"warning: .* out of memory in generate.*; it is started again")  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Try all; print what was tried and what has held, by group."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults memory", description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="that each of them is tried")
    parser.add_argument("--only", default="", help="of those whose name matches")
    given = parser.parse_args(arguments)
    os.environ.setdefault("OPD_PARTS", "tests")
    tried: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        models = saved(Path(folder))
        for i, want in enumerate([w for w in wants() if re.search(given.only, str(w))] * given.times):
            wrong = list(judged(want, Place(Path(folder) / str(i), *models)))
            tried[want.group] += [f"{want}: {'; '.join(wrong)}" if wrong else ""]
            print(f"{want}: {'; '.join(wrong) or 'held'}", file=sys.stderr, flush=True)
    return table(tried)


def judged(want: Want, place: Place) -> Iterator[str]:
    """Try one; what has not held."""
    place.folder.mkdir()
    config, run = place.config(), place.folder / "run"
    if want.command != "train":
        assert command(["train", f"conf={config}", f"run={run}", *CALM, "-q"], place.folder).code == 0
    before = listed(place.folder)
    begun = time.monotonic()
    ended = _train(want, place, config, run, want.overrides)
    if (seconds := time.monotonic() - begun) > HANGS + STARTING * want.apart:
        yield f"it took {seconds:.0f} s"
    yield from _told(want, ended)
    left = listed(place.folder) - before
    if want.begun or want.code <= 0:
        left = {name for name in left if re.search(r"writing|rehearsal|export/", name)}
    if left:
        yield f"left: {sorted(left)[:5]}"
    if want.like is not None and not ended.code:
        yield from _same(want, place, config, run, " ".join(ended.err))


def _train(want: Want, place: Place, config: Path, run: Path, overrides: Sequence[str]) -> Ended:
    arguments = ["train", f"conf={config}", f"run={run}", *CALM, *overrides]
    if want.command != "train":
        return command([want.command, f"run={run}", *overrides], place.folder)
    if not want.apart:
        return command([*arguments, "-q"], place.folder, memory=want.memory)
    started = opd(*arguments)
    try:
        code, err = started.end(HANGS + STARTING)
        return Ended(code, err + [f"processes left: {left}" for left in [started.left] if left], 0.0)
    finally:
        started.clear()


def _told(want: Want, ended: Ended) -> Iterator[str]:
    lines = [text for text in ended.err if not text.startswith("warning: ")]
    if ended.code != want.code and not (want.code == -1 and ended.code in (0, 1)):
        yield f"exit code {ended.code}: {ended.err[-2:]}"
    mistakes = ended.code == 2 and bool(lines) and all(text.startswith("opd: ") for text in lines)  # a line for each
    if len(lines) != bool(ended.code) and not mistakes:
        yield f"{len(lines)} lines: {lines[:4]}"
    if want.code == -1 and ended.code and "out of memory in " not in "".join(lines):
        yield f"it does not say that memory is short: {lines}"
    if not re.search(want.told, "\n".join(ended.err)):
        yield f"it does not say {want.told!r}: {ended.err}"
    for text in ended.err:
        yield from said(text)


def _same(want: Want, place: Place, config: Path, run: Path, err: str) -> Iterator[str]:
    """Whether a run that got through is the one that it says it is."""
    found, calm = re.search(want.told, err), place.folder / "calm"
    assert found is not None
    assert want.like is not None
    ended = _train(want, place, config, calm, [setting.format(*found.groups()) for setting in want.like])
    if ended.code or not same(weights(run), weights(calm)):
        yield "its weights are those of no other run"
    if len(checkpoints(run / "checkpoints")) != len(checkpoints(calm / "checkpoints")):
        yield "a checkpoint is missing"
