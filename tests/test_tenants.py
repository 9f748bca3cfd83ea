"""One GPU that engine, teacher and learner take turns on: who comes, works and leaves when, in a whole run on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import opd.learner.student
from opd.devices.team import Team
from opd.run.metrics import read_metrics
from tests.ranks import processes
from tests.tenants import DIARY, movers
from tests.test_ranks import ran
from tests.tiny import cli_code, timed

SHARED = [
    "rollout._target_=tests.tenants.SleepyHf", "teacher._target_=tests.tenants.DiaryTeacher", "student.offload=true",
    "optim.offload=true",
]  # fmt: skip
ENGINE = ["wake weights", "wake kv_cache", "sample"]
PUSH = ["wake weights", "push", "weights come", "weights leave", "wake kv_cache"]
EVALUATION = ["sample", "sleep keeping", "score"]
LEARN = ["sample", "sleep losing", "score", "weights come", "states come", "states leave", "weights leave", *PUSH]


def learned(run: Path) -> list[dict[str, float]]:
    rows = read_metrics(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith("perf/") and not timed(k)} for row in rows]


def saved(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights and optimizer states; those of a student that is away were written from where it is."""
    folder = run / f"checkpoints/step_{step:06d}"
    files = [*sorted(folder.glob("model/*.safetensors")), folder / "optimizer.safetensors"]
    return {f"{f.name} {k}": v.float() for f in files for k, v in load_file(f).items()}


def same(a: Path, b: Path, step: int) -> None:
    x, y = saved(a, step), saved(b, step)
    assert x.keys() == y.keys()
    assert all(torch.equal(x[k], y[k]) for k in x)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The students of this process leave "the GPU" of a CPU."""
    monkeypatch.setattr("opd.learner.student.mover", movers(*["weights", "states"] * 9))
    DIARY.clear()


def test_a_shared_gpu_is_handed_on_in_order_and_no_number_depends_on_it(
    together: None, config: Path, tmp_path: Path
) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert cli_code(["train", f"conf={config}", f"run={alone}", "steps=4", "-q"]) == 0
    assert DIARY == []  # nobody moves who was not told to
    assert cli_code(["train", f"conf={config}", f"run={shared}", "steps=4", "-q", *SHARED]) == 0
    assert learned(alone) == learned(shared)
    same(alone, shared, 4)
    steps = [*EVALUATION, *ENGINE[:2], *LEARN, *LEARN, *LEARN, *EVALUATION, *ENGINE[:2], *LEARN, *EVALUATION]
    assert DIARY[-len(steps) :] == steps
    assert DIARY[: -len(steps)] == [
        # The engine starts first, and makes room before the student is read, whose states are made at home.
        "sleep keeping", "states leave", "weights leave",
        *PUSH, "sample", "sleep keeping", "score",  # preflight: what the engine wrote is judged,
        *ENGINE, "sleep keeping", "weights come", "weights leave",  # the source tried, the learner asked,
        *PUSH, "logprobs", "sleep losing", "weights come", "weights leave", *PUSH,  # another model pushed, and the true
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "own",
    [
        ["student.lora.rank=4"],
        ["teacher=self_ema", "objective=gkd"],
        ["teacher=self_live", "objective=gkd"],
        ["optim.steps_per_batch=2", "source=multi_turn"],
    ],
    ids=lambda own: own[0].split("=")[-1],
)
def test_every_learner_can_leave(own: list[str], together: None, config: Path, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    used = [s for s in SHARED if not s.startswith("teacher") or not own[0].startswith("teacher")]
    if own[0].startswith("student.lora"):
        own = ["student=lora", "student.gradient_checkpointing=false", *own]
    assert cli_code(["train", f"conf={config}", f"run={alone}", "steps=3", "-q", *own]) == 0
    assert cli_code(["train", f"conf={config}", f"run={shared}", "steps=3", "-q", *own, *used]) == 0
    assert learned(alone) == learned(shared)
    same(alone, shared, 3)
    assert DIARY.count("sleep losing") == 3 + 1


def test_a_run_that_goes_on_brings_its_states_home(together: None, config: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert cli_code(["train", f"conf={config}", f"run={whole}", "steps=4", "-q"]) == 0
    assert cli_code(["train", f"conf={config}", f"run={halves}", "steps=2", "-q", *SHARED]) == 0
    DIARY.clear()
    assert cli_code(["train", "--resume", f"run={halves}", "steps=4", "-q"]) == 0
    same(whole, halves, 4)
    made = ["sleep keeping", "states leave", "weights leave"]
    assert DIARY[:5] == [*made, "weights come", "weights leave"]  # states that are read go to where those are


def ran_shared(team: Team, conf: str, run: str, overrides: Sequence[str]) -> list[str]:
    """A run on ranks whose optimizers leave "the GPU" of a CPU; what this rank's tenants did."""
    DIARY.clear()
    before, opd.learner.student.mover = opd.learner.student.mover, movers("weights", "states")
    try:
        ran(team, conf, run, overrides)
    finally:
        opd.learner.student.mover = before
    return list(DIARY)


@pytest.mark.slow
@pytest.mark.parametrize("own", [[], ["student.lora.rank=4"]], ids=["all weights", "adapters"])
def test_each_rank_shares_its_own_gpu(own: list[str], config: Path, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    common = ["steps=3", "threads=1", "eval.every=0", *own]
    with processes(2) as two:
        two(ran, str(config), str(alone), common)
        diaries = two(ran_shared, str(config), str(shared), [*common, *SHARED])
    assert learned(alone) == learned(shared)
    same(alone, shared, 3)
    here = [e for e in LEARN if not e.startswith("weights")]  # a shard of the weights stays
    steps = [*here, *here, *EVALUATION]
    assert [diary[-len(steps) :] for diary in diaries] == [steps, steps]
