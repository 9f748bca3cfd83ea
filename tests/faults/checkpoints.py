"""Damage one file of a run's newest checkpoint, and go on: from the older one, to the same weights, and it is said."""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

from opd.run.checkpoint import checkpoints
from tests.faults.damages import WAYS, Site
from tests.faults.run import opd, same, weights
from tests.tiny import cli_code, save_config, save_model

LONGEST = 120.0
"""Seconds after which a run of two steps has ended; a busy machine included."""
SHORT = ("steps=4", "checkpoint.every=2", "checkpoint.keep=2", "eval.every=0", "eval.size=2", "preflight.prompts=2")
LAYOUTS = {
    "all weights": (),
    "a moving average": ("teacher=self_ema", "teacher.decay=0.5", "teacher.context='{prompt}{answer}'"),
    "adapters": ("student.lora.rank=2",),
}
"""What a checkpoint may be of."""
ELSEWHERE = (
    "manifest removed",
    "manifest edited",
    "the older checkpoint's",
    "another model's",
    "the older one, renamed",
)
"""Ways that may show in another file than the one that was damaged."""
EARLIER = "any, of an earlier opd"


@dataclass(frozen=True)
class Whole:
    """A finished run with two checkpoints, one of another model with the same shapes, and what the first ended with."""

    run: Path
    other: Path
    end: dict[str, torch.Tensor]


def main(arguments: Sequence[str]) -> int:
    """Print a table; returns 1 where something has not held."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults checkpoints", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="that each kind of damage is done, to other files each")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    tried: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for way, what, wrong in attempts(Path(folder), given.times, random.Random(given.seed)):
            tried[way] += ["; ".join(wrong)]
            print(f"{way}, {what}: {'; '.join(wrong) or 'passed'}", file=sys.stderr, flush=True)
    print(f"{'damage':32} {'tried':>6} {'passed':>7}")
    for way, found in tried.items():
        print(f"{way:32} {len(found):6} {found.count(''):7}")
    every = [wrong for found in tried.values() for wrong in found]
    print(f"{'all':32} {len(every):6} {every.count(''):7}")
    return int(any(every))


def attempts(
    place: Path,
    times: int,
    rng: random.Random,
    ways: Sequence[str] = tuple(WAYS),
    layouts: Sequence[str] = tuple(LAYOUTS),
    earlier: bool = True,
) -> Iterator[tuple[str, str, list[str]]]:
    """Do each kind of damage so often: its name, to which file of what, and what has not held.

    `earlier`: once more each to checkpoints without a manifest, which need not be found out, and have to be answered.
    """
    made = {layout: whole(place / layout.replace(" ", "_"), LAYOUTS[layout]) for layout in layouts}
    for way in ways:
        files = iter(_shuffled(made, way, rng))
        done, proven = 0, times
        while done < times + earlier and (picked := next(files, None)):
            layout, name = picked
            run = shutil.copytree(made[layout].run, place / "run")
            newest, older = (run / "checkpoints" / f"step_00000{step}" for step in (4, 2))
            site = Site(newest / name, older / name, made[layout].other / "checkpoints" / newest.name / name, rng)
            if done >= proven and not unproven(run, site):
                done = times + 1  # there is no manifest to be harmed
            elif WAYS[way](site):
                named = name if way not in ELSEWHERE else ""
                told = command("doctor", f"run={run}")
                ended = resumed(run, alone=done == 3)
                wrong = list(clear(run, ended))
                if done < proven:
                    wrong += [*examined(*told), *proved(run, made[layout], named, *ended)]
                    yield way, f"{name} of {layout}", wrong
                else:
                    yield EARLIER, f"{way}, {name} of {layout}", wrong
                done += 1
            shutil.rmtree(run)


def unproven(run: Path, site: Site) -> bool:
    """Make checkpoints ones of an opd that wrote no manifest; False where the harm is to that."""
    for checkpoint in checkpoints(run / "checkpoints"):
        state = {name: value for name, value in checkpoint.state().items() if name not in ("proven", "stepped")}
        (checkpoint.path / "state.json").write_text(json.dumps(state))
        (checkpoint.path / "manifest.json").unlink()
    return site.file.exists()


def _shuffled(made: dict[str, Whole], way: str, rng: random.Random) -> list[tuple[str, str]]:
    """All files of the newest checkpoints, the manifest first where it is what is harmed."""
    found = []
    for layout, each in made.items():
        newest = each.run / "checkpoints" / "step_000004"
        found += [(layout, p.relative_to(newest).as_posix()) for p in newest.rglob("*") if p.is_file()]
    rng.shuffle(found)
    return sorted(found, key=lambda item: "manifest" in way and item[1] != "manifest.json")


def whole(place: Path, own: Sequence[str]) -> Whole:
    """Train two students of the same shapes for four steps each."""
    teacher = save_model(place / "teacher", "llama", seed=2, tied=False, hidden=96)
    for name, seed in (("run", 1), ("other", 7)):
        config = save_config(
            place / f"{name}.yaml", save_model(place / name / "model", "qwen3", seed=seed, tied=True), teacher
        )
        given = [f"conf={config}", f"run={place / name / 'run'}", "-q", *SHORT, *own]
        if own and own[0].startswith("teacher="):
            given = [config_of_its_own(config, own[0]) if g.startswith("conf=") else g for g in given if g != own[0]]
        code, said = command("train", *given)
        assert code == 0, said
    run = place / "run" / "run"
    return Whole(run, place / "other" / "run", weights(run))


def config_of_its_own(config: Path, teacher: str) -> str:
    """A config whose teacher is another one than the local one that it names."""
    lines = [line for line in config.read_text().splitlines() if not line.startswith("teacher:")]
    lines.insert(lines.index("  - _self_"), f"  - override teacher: {teacher.partition('=')[2]}")
    config.write_text("\n".join(lines))
    return f"conf={config}"


def examined(code: int, said: str) -> Iterator[str]:
    """What is wrong about what `opd doctor` tells of such a run."""
    if code != 1 or "fail  step_000004: damaged: " not in said or "ok    step_000002: good" not in said:
        yield f"doctor does not tell: {code}, {said!r}"


def resumed(run: Path, alone: bool) -> tuple[int, str, float]:
    """Exit code, what was said, and seconds of going on with a run; `alone`: in a process of its own."""
    resume, begun = ["train", "--resume", f"run={run}", "-q"], time.monotonic()
    if alone:
        code, lines = opd(*resume).end(LONGEST)
        return code, "\n".join(lines), time.monotonic() - begun
    code, said = command(*resume)
    return code, said, time.monotonic() - begun


def clear(run: Path, ended: tuple[int, str, float]) -> Iterator[str]:
    """What is wrong about an end, whatever has led to it."""
    code, said, seconds = ended
    if seconds > LONGEST:
        yield f"it took {seconds:.0f} s"
    if "internal error" in said or "Traceback" in said:
        yield f"an error of its own: {said[-300:]!r}"
    elif code not in (0, 1, 2):
        yield f"exit code {code}"
    elif code:
        if [line for line in said.splitlines() if line.startswith("opd: ")] != said.splitlines()[-1:]:
            yield f"not one clear line: {said[-300:]!r}"
        if str(run) not in said:
            yield f"the line does not say where: {said[-300:]!r}"
    if list((run / "checkpoints").glob(".*")):
        yield "something half-written is left"


def proved(run: Path, made: Whole, name: str, code: int, said: str, seconds: float) -> Iterator[str]:
    """What is wrong about a run that had an older good checkpoint to go on from; `name`: what was damaged, if known."""
    if code:
        yield f"it did not go on: {said[-300:]!r}"
        return
    if "step_000004 is damaged (" not in said or not (Path(name).name in said or "manifest.json" in said):
        yield f"it does not say what is damaged: {said[:300]!r}"
    if "going on from step_000002: the steps 3 to 4 are lost, and are done again" not in said:
        yield f"it does not say what is lost: {said[:300]!r}"
    if not same(weights(run), made.end):
        yield "its weights are others than those of a run that nobody harmed"
    if [c.step for c in checkpoints(run / "checkpoints")] != [2, 4]:
        yield "other checkpoints are left"
    if command("doctor", f"run={run}")[0]:
        yield "what it wrote is not good"


def command(*arguments: str) -> tuple[int, str]:
    """Exit code of a command in this process, and what it said."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = cli_code(list(arguments))
    return code, out.getvalue()
