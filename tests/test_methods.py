"""Every method trains: 30 steps on the models that ship, each kind of writer also through vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.run.metrics import read_metrics
from tests.tiny import cli_code

SMALL = [
    "steps=30", "data.prompts_per_step=96", "eval.size=200", "eval.every=0", "checkpoint.every=30",
    "log.rollouts_every=0", "optim.warmup_steps=2", "optim.schedule=constant",
]  # fmt: skip
ENGINE = {True: ["rollout.memory_gb=0.2"], False: ["rollout=hf", "rollout.dtype=float32"]}
ANY = "_target_: opd.tasks.arithmetic.Arithmetic, min_operations: 3, max_operations: 5, max_value: 20"
METHODS = {
    "reverse_kl": ["conf=quickstart"],
    "reverse_kl baseline": ["conf=quickstart", "objective.estimator=baseline"],
    "reverse_kl exact": ["conf=quickstart", "objective.estimator=exact"],
    "gkd": ["conf=gkd"],
    "gkd seq_kd": ["conf=gkd", "source=teacher"],
    "top_k of the teacher": ["conf=quickstart", "objective=top_k"],
    "top_k of the student": ["conf=quickstart", "objective=top_k", "objective.of=student", "objective.k=5"],
    "top_k of both": ["conf=quickstart", "objective=top_k", "objective.of=union", "objective.k=3"],
    "reverse_kl baseline of the top-k": ["conf=quickstart", "objective=top_k_baseline", "objective.k=5"],
    "minillm": ["conf=minillm"],
    "sft": ["conf=sft"],
    "sft on the teacher's": ["conf=sft", "source=teacher"],
    "gold": ["conf=gold"],
    "gold hybrid": ["conf=gold", "objective.method=hybrid", "teacher.model.merges=0"],
    "reverse_kl and reward": [
        "conf=quickstart",
        "objective=reverse_kl_grpo",
        "sampling.n=4",
        "data.prompts_per_step=24",
    ],
    "grpo": ["conf=grpo", "teacher=quickstart", "sampling.n=8", "data.prompts_per_step=24"],
    # A model that ships in the place of both specialists, which would take minutes to make.
    "routed": ["conf=multi_teacher", *(f"teacher.teachers.{name}.model.task={{{ANY}}}" for name in ("short", "long"))],
}
ON_VLLM = {"reverse_kl", "gkd seq_kd", "gold", "grpo"}
BY_REWARD = {"grpo"}
"""What it must raise is the accuracy: it does not look at the teacher."""


def halved(setting: str) -> str:
    """With half of the prompts, which show it too."""
    name, _, value = setting.partition("=")
    return f"{name}={int(value) // 2}" if name in ("data.prompts_per_step", "eval.size") else setting


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param(m, marks=pytest.mark.vllm) if m in ON_VLLM else m for m in METHODS])
def test_thirty_steps_bring_the_student_nearer(method: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # What a method says of its own comes last.
    given, own = METHODS[method][:1], [*SMALL, *ENGINE[method in ON_VLLM], *METHODS[method][1:]]
    sized = own if method in BY_REWARD else map(halved, own)
    assert cli_code(["train", *given, f"run={run}", *sized]) == 0
    rows = read_metrics(run / "metrics.jsonl")
    first, last = rows[0], rows[-1]
    print(
        f"{method}: KL {first['eval/kl']:.3f} -> {last['eval/kl']:.3f}, "
        f"accuracy {first['eval/accuracy']:.3f} -> {last['eval/accuracy']:.3f}, {last['perf/step_s']:.2f} s"
    )
    if method in BY_REWARD:
        assert last["eval/accuracy"] > first["eval/accuracy"]
    else:
        assert last["eval/kl"] < 0.9 * first["eval/kl"]
