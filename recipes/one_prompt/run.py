"""Thirty steps of OPD on a single prompt: does a pruned SmolLM2 get better on all others, or memorise the one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opd import recipe
from opd.run.metrics import read_metrics

STEPS = 30
ONE = (
    "data.tasks.one._target_=opd.tasks.text.Prompts", "data.tasks.one.eval_fraction=0", "data.weights={one: 1}",
    "data.evaluated=[everyday]", "data.prompts_per_step=1", "sampling.n=16",
    "eval.size=64",  # half of it for each task: the same 32 held-out prompts, and none of the one
)  # fmt: skip
ARMS = {"many": "16 prompts a step", "one": "one prompt, 16 samples a step"}
SEEDS = {"many": (0, 1, 2), "one": (0,)}
"""Each has a prompt of its own in the arm of one."""


def train(arm: str, seed: int) -> recipe.Train:
    """One run."""
    own = (*ONE, f"data.tasks.one.path={{recipe}}/prompt{seed}.jsonl") if arm == "one" else ()
    return recipe.Train(run_name(arm, seed), ("conf=smollm2", f"steps={STEPS}", *own, f"seed={seed}"))


def run_name(arm: str, seed: int) -> str:
    """Where a run is."""
    return f"{arm}-seed{seed}"


def measure(work: recipe.Work) -> recipe.Result:
    """Compare the held-out reverse KL of both arms, and each with that on what it was trained on."""
    curves = {a: [work.curve(run_name(a, s)) for s in SEEDS[a]] for a in ARMS}
    before = {a: recipe.mean([c.kl[0] for c in of]) for a, of in curves.items()}
    after = {a: recipe.mean([c.kl[-1] for c in of]) for a, of in curves.items()}
    share = (before["one"] - after["one"]) / (before["many"] - after["many"])
    rows = tuple(
        (f"{what} (seed {', '.join(map(str, SEEDS[a]))})", *(span([c.kl[i] for c in curves[a]]) for i in (0, -1)),
         trained(work, a))
        for a, what in ARMS.items()
    )  # fmt: skip
    return recipe.Result(
        tables=(
            recipe.Table(
                "Reverse KL to the whole model, nats/token, mean and range of the seeds: on 32 held-out prompts, and "
                "on the samples of those that were trained on, in the last five steps",
                ("trained on", "held out, before", f"held out, after {STEPS} steps", "on those trained on"), rows,
            ),
        ),
        claims=(
            recipe.Claim(
                "A model can be trained on one prompt for many steps without memorising it, and comes close to what "
                "many prompts give (published: 20 steps on one problem, close to the teacher on AIME'24).",
                f"one prompt gives {share:.0%} of the fall in held-out KL that many prompts give.",
                "reproduced" if share >= 0.8 else "partly" if share >= 0.3 else "not reproduced",
            ),
        ),
        data={ARMS[a]: [c.plain() for c in of] for a, of in curves.items()},
    )  # fmt: skip


def trained(work: recipe.Work, arm: str) -> str:
    """Reverse KL on the rollouts of the last five steps, before each update."""
    rows = [read_metrics(work.run(run_name(arm, s)).metrics)[-5:] for s in SEEDS[arm]]
    return span([recipe.mean([r["kl/sampled"] for r in of]) for of in rows])


def span(values: Sequence[float]) -> str:
    """Mean and range; the value alone where there is one."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{recipe.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def plot(data: Mapping[str, Any]) -> Any:
    """Held-out reverse KL over steps."""
    drawn, axes = recipe.figure()
    recipe.curves_over(axes[0], data, "steps", "kl")
    recipe.mark_axes(axes[0], "optimizer steps", "held-out reverse KL, nats/token")
    return drawn


PROBLEM = (
    "data.tasks.one._target_=opd.tasks.math.Math", "data.tasks.one.path={recipe}/problem.jsonl",
    "data.tasks.one.prompt_column=question", "data.tasks.one.answer_column=final_answer",
    "data.tasks.one.eval_fraction=0", "data.weights={one: 1}", "data.evaluated=[deepmath]", "data.prompts_per_step=1",
)  # fmt: skip
AIME = ("data=aime", "eval=aime", "data.weights={aime24: 1}", "eval.size=30")
FULL = (
    recipe.Train("sft", ("conf=math_qwen_sft",)),
    recipe.Export("sft-model", "sft", dtype="bfloat16"),
    recipe.Train(
        "one",
        ("conf=math_qwen", "student.model={work}/sft-model", "steps=20", "sampling.n=256", *PROBLEM),
        after=("sft-model",),
    ),
    recipe.Evaluate("aime-one", ("run={work}/one", *AIME), after=("one",)),
)
PUBLISHED = "20 steps of 256 samples of one problem come near the teacher's AIME'24 (Thinking Machines, 2025; a plot)"
RECIPE = recipe.Recipe(
    stages=tuple(train(a, s) for a in ARMS for s in SEEDS[a]), measure=measure, plots={"kl": plot}, full=FULL,
    published=PUBLISHED,
)  # fmt: skip
