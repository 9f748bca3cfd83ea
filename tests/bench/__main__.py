"""Measure, and print one table: `python -m tests.bench [--quick] [--json FILE] [--only SECTION]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tests.bench import cases, lockstep, losses, server

MEMORY_TARGET = 0.5
"""A step may take at most this share of the naive version's memory."""
LOSS_TARGET = 0.25
"""And a loss alone at most this one."""
AHEAD_TARGET = 1 / 1.4
"""And a step with an engine ahead at most so much of its time."""
RANKS_TARGET = 1 / 1.7
"""One process may train at most so much of what two ranks do."""
PEER_TARGET = 1 / 1.5
"""And a step of some size at most so much of TRL's time."""
FLOOR_TARGETS = {"update": 1 / 0.85, "step": 1 / 0.8}
"""And a phase so many times of what its operations take at the peak."""
console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)


@dataclass(frozen=True)
class Row:
    """One comparison."""

    section: str
    what: str
    ours: list[float]
    other: list[float]
    unit: str
    target: float | None = None
    """The ratio must not be above it."""
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Ours by the other, of measurements taken one after the other."""
        return [a / b for a, b in zip(self.ours, self.other, strict=True)]

    @property
    def met(self) -> bool:
        """Whether the target, if any, is met."""
        return self.target is None or median(self.ratios) <= self.target


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    step: list[tuple[int, int]]
    layout: list[tuple[int, int]]
    teacher: list[tuple[int, int]]
    prompts: int
    tokens: int
    layout_layers: int
    layers: int
    repeats: int


FULL = Size(
    step=cases.even(16, 32, 128), layout=cases.uneven(32, 256), teacher=cases.uneven(24, 256), prompts=32, tokens=64,
    layout_layers=8, layers=30, repeats=3,
)  # fmt: skip
QUICK = Size(
    step=cases.even(16, 32, 128), layout=cases.uneven(16, 128), teacher=cases.uneven(12, 128), prompts=8, tokens=16,
    layout_layers=2, layers=4, repeats=1,
)  # fmt: skip
OWN = ("objective=reverse_kl", "data.prompts_per_step=32", "eval.max_tokens=48")
EARLY = {
    "quickstart, 256 sums": ("quickstart", 8, []),
    "SmolLM2, 32 x 128": ("smollm2", 1, [*OWN, "sampling.max_tokens=128"]),
    "SmolLM2, 32 x 48, 8 at once": ("smollm2", 1, [*OWN, "sampling.max_tokens=48", "rollout.max_num_seqs=8"]),
}
"""Config, steps and overrides of runs whose teacher is on a server; float32, a thread each."""
Section = Callable[[Size, Path], Iterator[Row]]


def loss(size: Size, folder: Path) -> Iterator[Row]:
    """Peak memory and time of a loss alone, 2048 tokens."""
    for objective in losses.OBJECTIVES:
        for dtype in ("float32", "bfloat16"):
            spec = {"section": "loss", "model": "", "count": 2048, "objective": objective, "dtype": dtype}
            found = lockstep.fresh(variants(spec | {"memory": True}, "chunked", "naive"), min(2, size.repeats))
            same(found, "check")
            same(found, "weight")
            peaks = (values(found[name], "peak_mib") for name in ("chunked", "naive"))
            yield Row("peak memory of a loss", f"{objective}, {dtype}", *peaks, "MiB", LOSS_TARGET)
            found = lockstep.alternate(variants(spec | {"memory": False}, "chunked", "naive"), size.repeats)
            speeds = ([2048 / s for s in values(found[name], "seconds")] for name in ("chunked", "naive"))
            yield Row("speed of a loss", f"{objective}, {dtype}", *speeds, "tokens/s")


def memory(size: Size, folder: Path) -> Iterator[Row]:
    """Peak memory of a step, above what is in use before it; one layer, so that it is the head's that shows."""
    for dtype, exact in [("float32", False), ("bfloat16", False), ("float32", True), ("bfloat16", True)]:
        spec = {"section": "step", "memory": True, "model": folder / "1", "lengths": size.step, "exact": exact}
        found = lockstep.fresh(variants(spec | {"dtype": dtype}, "chunked", "naive"), min(2, size.repeats))
        same(found, "check")
        what = f"{dtype}, {sum(c for _, c in size.step)} tokens" + (", exact KL logged" if exact else "")
        peaks = (values(found[name], "peak_mib") for name in ("chunked", "naive"))
        yield Row("peak memory of a step", what, *peaks, "MiB", MEMORY_TARGET)


def step(size: Size, folder: Path) -> Iterator[Row]:
    """Time of the same step."""
    for dtype in ("float32", "bfloat16"):
        spec = {"section": "step", "memory": False, "model": folder / "2", "lengths": size.step, "exact": False}
        found = lockstep.alternate(variants(spec | {"dtype": dtype}, "chunked", "naive"), size.repeats)
        same(found, "check")
        tokens = sum(c for _, c in size.step)
        speeds = ([tokens / s for s in values(found[name], "seconds")] for name in ("chunked", "naive"))
        yield Row("speed of a step, head chunked", f"{dtype}, 2 layers", *speeds, "tokens/s")


def layout(size: Size, folder: Path) -> Iterator[Row]:
    """Time of a step of uneven lengths: rows packed against one sequence to a row."""
    model = folder / str(size.layout_layers)
    spec = {"section": "layout", "model": model, "lengths": size.layout, "dtype": "bfloat16"}
    found = lockstep.alternate(variants(spec, "packed", "padded"), size.repeats)
    share = {name: found[name][0]["padding"] for name in found}
    note = f"padding {share['packed']:.0%} against {share['padded']:.0%}"
    speeds = (speed(found[name]) for name in ("packed", "padded"))
    yield Row("speed of a step, packed", f"bfloat16, {size.layout_layers} layers", *speeds, "tokens/s", note=note)


def teacher(size: Size, folder: Path) -> Iterator[Row]:
    """Time of scoring: packed, head on completion rows only, against one padded batch with full logits."""
    for dtype in ("bfloat16", "float32"):
        spec = {"section": "teacher", "model": folder / str(size.layers), "lengths": size.teacher, "dtype": dtype}
        found = lockstep.alternate(variants(spec, "ours", "naive"), size.repeats)
        same(found, "check")
        speeds = (speed(found[name]) for name in ("ours", "naive"))
        yield Row("speed of teacher scoring", f"{dtype}, {size.layers} layers", *speeds, "tokens/s")


def prompts(size: Size, folder: Path) -> Iterator[Row]:
    """Time of a pass of the body over four samples of each prompt: the prompt read once, against once for each sample.

    `opd` does not read prompts once; docs/speed.md says why.
    """
    for count, prompt, completion in ((4, 44, 48), (2, 100, 200), (1, 150, 600)):
        for learning in (True, False):
            spec = {"section": "prompts", "model": folder / "2", "dtype": "float32", "learning": learning}
            spec |= {"shape": (count, prompt, completion, 4)}
            found = lockstep.alternate(variants(spec, "once", "each"), size.repeats)
            same(found, "check")
            share = found["once"][0]["positions"] / found["each"][0]["positions"]
            what = f"{'back, too' if learning else 'forward'}, prompts of {prompt} tokens, samples of {completion}"
            speeds = (speed(found[name]) for name in ("once", "each"))
            yield Row("speed of a body, prompts read once", what, *speeds, "tokens/s", note=f"positions {share:.2f}")


def rollouts(size: Size, folder: Path) -> Iterator[Row]:
    """Time of sampling: the engines against transformers' generate; and of a weight push."""
    spec = {"section": "rollouts", "model": folder / str(size.layers), "dtype": "bfloat16"}
    spec |= {"prompts": size.prompts, "tokens": size.tokens}
    found = lockstep.alternate(variants(spec, "vllm", "generate", "hf"), size.repeats)
    other, what = speed(found["generate"]), f"bfloat16, {size.prompts} x {size.tokens} tokens"
    for name in ("vllm", "hf"):
        push = median(values(found[name], "push"))
        note = f"weight push {push:.2f} s"
        yield Row(f"speed of rollouts, {name} to generate", what, speed(found[name]), other, "tokens/s", note=note)


def ahead(size: Size, folder: Path) -> Iterator[Row]:
    """Time of a step of the quickstart, the engine in a process of its own and a step ahead; needs two free cores."""
    kinds = {"apart": ["devices=apart", "devices.ahead=1"], "one": []}
    spec = {"section": "whole", "conf": "quickstart", "steps": 16, "ranks": 0}
    found = lockstep.alternate(
        {name: spec | {"variant": name, "overrides": given} for name, given in kinds.items()}, size.repeats
    )
    times = (values(found[name], "milliseconds") for name in kinds)
    yield Row("time of a step, engine a step ahead", "quickstart, a thread each", *times, "ms", AHEAD_TARGET)


def early(size: Size, folder: Path) -> Iterator[Row]:
    """Time of a step with the teacher on a server of another core: asked as samples are finished, or when all are."""
    mine, other = sorted(os.sched_getaffinity(0))[:2]
    kinds = {"early": False, "in the end": True}
    for what, (conf, steps, own) in EARLY.items():
        with server.served(conf, other) as url:
            given = ["teacher=server", f"teacher.url={url}", "student.dtype=float32", "rollout.dtype=float32", *own]
            spec = {"section": "whole", "conf": conf, "steps": steps, "ranks": 0, "overrides": given, "cores": [mine]}
            found = lockstep.alternate(
                {name: spec | {"variant": name, "late": late} for name, late in kinds.items()}, size.repeats
            )
        times = (values(found[name], "milliseconds") for name in kinds)
        waits = " against ".join(f"{median(values(found[name], 'judging')):.0f}" for name in kinds)
        yield Row("time of a step, judged early", what, *times, "ms", note=f"waiting for the judge {waits} ms")


def ranks(size: Size, folder: Path) -> Iterator[Row]:
    """Tokens that two ranks train in a second, against one process; needs two free cores.

    And those of two processes which do half of the work each and exchange nothing: more the machine does not give.
    """
    shape = {"sampling.max_tokens": size.tokens, "sampling.n": 1}
    dtypes = dict.fromkeys(("student.dtype", "teacher.dtype", "rollout.dtype"), "float32")

    def run(prompts: int, count: int, shard: int) -> dict[str, Any]:
        given = [f"{name}={value}" for name, value in (shape | dtypes | {"data.prompts_per_step": prompts}).items()]
        work = {"section": "whole", "conf": "smollm2", "steps": 1, "overrides": given, "ranks": count, "shard": shard}
        return work | {"variant": f"{count} {shard}"}

    sides = {
        "two ranks, a copy of the weights each": run(size.prompts, 2, 1),
        "two ranks, one copy": run(size.prompts, 2, 2),
        "two processes that exchange nothing": run(size.prompts // 2, 2, 0),
    }
    for name, side in sides.items():  # by pairs: all at once would not fit into a laptop's memory
        found = lockstep.alternate({"one": run(size.prompts, 0, 0), name: side}, size.repeats)
        speeds = (speed(found[of]) for of in ("one", name))
        what = f"SmolLM2, float32, {size.prompts} x {size.tokens} tokens, a thread each: {name}"
        target = RANKS_TARGET if side["shard"] else None
        yield Row("speed of one process to that of two", what, *speeds, "tokens/s", target)


def peer(size: Size, folder: Path) -> Iterator[Row]:
    """Time in which a whole step writes, judges and trains a token, against TRL's DistillationTrainer; a thread each.

    SmolLM2 without six of its layers learns from the whole one; TRL samples with transformers' generate.
    """
    if find_spec("trl") is None:
        raise SystemExit("trl is not installed: make bench installs it")
    for samples, tokens in ((16, 48), (32, 128), (64, 256))[: None if size is FULL else 1]:
        for n in (1, 4):
            given = {"data.prompts_per_step": samples // n, "sampling.n": n, "sampling.max_tokens": tokens}
            given |= dict.fromkeys(("student.dtype", "teacher.dtype", "rollout.dtype"), "float32")
            work = {"conf": "smollm2", "overrides": [f"{name}={value}" for name, value in given.items()], "ranks": 0}
            sides = {
                "ours": {"section": "whole", "steps": 1}, "trl": {"section": "peer", "steps": size.repeats + 1}
            }  # fmt: skip
            specs = {name: work | side | {"variant": name} for name, side in sides.items()}
            found = lockstep.alternate(specs, size.repeats)
            times = ([1e6 / tokens for tokens in speed(found[name])] for name in sides)
            what = f"SmolLM2, float32, {samples} x {tokens}, n={n}"
            yield Row("time of a step, TRL as naive", what, *times, "us/token", None if tokens < 128 else PEER_TARGET)


def floors(size: Size, folder: Path) -> Iterator[Row]:
    """Time of each phase of a step by that of its operations at the speed of a large matrix product; one thread."""
    for samples, tokens in ((16, 48), (32, 128))[: None if size is FULL else 1]:
        given = {"data.prompts_per_step": samples, "sampling.n": 1, "sampling.max_tokens": tokens}
        given |= dict.fromkeys(("student.dtype", "teacher.dtype", "rollout.dtype"), "float32")
        spec = {"section": "floors", "conf": "smollm2", "overrides": [f"{k}={v}" for k, v in given.items()]}
        found = lockstep.alternate({"run": spec | {"variant": "run"}}, size.repeats)["run"]
        peak = median(values(found, "peak")) / 1e9
        for phase in ("generate", "score", "update", "step"):
            times = ([1000 * v for v in values(found, key)] for key in (phase, f"{phase}_floor"))
            what = f"SmolLM2, float32, {samples} x {tokens}: {phase}"
            yield Row(f"time by its floor, {peak:.0f} GFLOP/s", what, *times, "ms", FLOOR_TARGETS.get(phase))


SECTIONS: dict[str, Section] = {
    "loss": loss, "memory": memory, "step": step, "layout": layout, "teacher": teacher, "rollouts": rollouts,
    "ahead": ahead, "early": early, "ranks": ranks, "prompts": prompts, "peer": peer, "floors": floors,
}  # fmt: skip


def variants(spec: dict[str, Any], *names: str) -> dict[str, dict[str, Any]]:
    """One spec per variant."""
    return {name: spec | {"variant": name, "model": str(spec["model"])} for name in names}


def values(found: list[dict[str, float]], key: str) -> list[float]:
    """One measured quantity."""
    return [f[key] for f in found]


def speed(found: list[dict[str, float]]) -> list[float]:
    """Completion tokens per second."""
    return [f["tokens"] / f["seconds"] for f in found]


def same(found: lockstep.Results, key: str) -> None:
    """See that the variants computed the same thing (the first time; later steps train on)."""
    first = [f[0][key] for f in found.values()]
    if max(first) - min(first) > 0.03 * max(map(abs, first)):
        raise RuntimeError(f"the variants do not agree on {key}: { {name: f[0][key] for name, f in found.items()} }")


def table(rows: list[Row]) -> Table:
    """Everything measured."""
    out = Table("what", "", "ours", "naive", "", "ratio", "min - max", "", title_justify="left")
    section = ""
    for row in rows:
        if row.section != section:
            out.add_section()
        ratio, spread = f"[bold]{median(row.ratios):.2f}[/]", f"{min(row.ratios):.2f} - {max(row.ratios):.2f}"
        verdict = "" if row.target is None else f"at most {row.target:.2f}: " + ("yes" if row.met else "[red]NO[/]")
        both = [f"{median(side):.0f}" for side in (row.ours, row.other)]
        label = row.section if row.section != section else ""
        out.add_row(label, row.what, *both, row.unit, ratio, spread, row.note or verdict)
        section = row.section
    return out


def main() -> int:
    """Measure all sections; 1 where a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller models, one repeat")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement")
    parser.add_argument("--only", choices=sorted(SECTIONS), action="append", help="this section (repeatable)")
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    started, rows = time.perf_counter(), list[Row]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for layers in {1, 2, size.layout_layers, size.layers}:
            cases.save_model(folder / str(layers), layers, torch.bfloat16)
        for section in args.only or SECTIONS:
            for row in SECTIONS[section](size, folder):
                rows.append(row)
                seconds = time.perf_counter() - started
                console.print(f"{seconds:4.0f} s  {row.section}, {row.what}: {median(row.ratios):.2f}", style="dim")
    console.print(table(rows))
    console.print(f"{time.perf_counter() - started:.0f} s in all; a ratio is ours by naive, paired by turn, its median")
    if args.json is not None:
        records = [asdict(row) | {"ratio": median(row.ratios), "met": row.met} for row in rows]
        args.json.write_text(json.dumps(records, indent=2) + "\n")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
