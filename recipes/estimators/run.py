"""Sampled, with baseline, top-k, exact: which estimator of the reverse KL learns fastest, and how noisy is each?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from opd import recipe
from opd.run.metrics import read_metrics

CONF = "{recipe}/estimators.yaml"
METHODS: dict[str, tuple[str, ...]] = {
    "sampled": ("objective=reverse_kl", "steps=150"),
    "with baseline": ("objective=reverse_kl", "objective.estimator=baseline", "steps=80"),
    "student's top-2, tail sampled": ("objective=top_k", "objective.of=student", "objective.k=2"),
    "exact": ("objective=reverse_kl", "objective.estimator=exact"),
    "teacher's top-5 and tail": ("objective=top_k", "objective.of=teacher", "objective.k=5"),
    "teacher's top-5, no tail": ("objective=without_tail",),
}
EXACT, TAIL, CUT = "exact", "teacher's top-5 and tail", "teacher's top-5, no tail"
"""The last one only stands here, as a test bed: `objective=top_k` refuses it."""
SEEDS = (0, 1, 2)
SETS = 32
"""Times that the prompts of one step are completed anew, for the gradients' variance."""
SHARE = 0.9
"""Of the teacher's accuracy, that is to be reached."""


def stage_name(method: str, seed: int) -> str:
    """Where a run is."""
    return f"{method.replace(',', '').replace(chr(39), '').replace(' ', '-')}-seed{seed}"


def stages() -> Iterator[recipe.Call | recipe.Train]:
    """Gradients first, then all methods, seed by seed."""
    yield recipe.Call("gradients", gradients)
    for seed in SEEDS:
        for method, settings in METHODS.items():
            yield recipe.Train(stage_name(method, seed), (f"conf={CONF}", *settings, f"seed={seed}"))


def gradients(work: recipe.Work) -> Mapping[str, Any]:
    """Complete the same 96 prompts 32 times with the first student, and take every estimator's gradient each time."""
    from gradients import take  # beside this file; here, as the rest needs no torch

    conf = CONF.replace("{recipe}", str(Path(__file__).parent))
    return take(conf, {m: settings for m, settings in METHODS.items() if m != CUT}, EXACT, SETS)


def measure(work: recipe.Work) -> recipe.Result:
    """Steps to 90% of the teacher's accuracy, beside the gradients' noise and the seconds of a step."""
    runs = {m: [work.curve(stage_name(m, s)) for s in SEEDS] for m in METHODS}
    found = work.json("gradients")
    level = SHARE * found["teacher"]
    needed = {m: [recipe.reaches(c.steps, c.accuracy, level) for c in curves] for m, curves in runs.items()}
    return recipe.Result(
        tables=(
            speed_table(runs, needed, level, {m: step_seconds(work, m) for m in METHODS}),
            noise_table(found["noise"], found["seconds"]),
        ),
        claims=(sooner(needed, found["noise"]), collapse(runs)),
        data={
            "level": level,
            "teacher": found["teacher"],
            "noise": found["noise"],
            "methods": {m: [c.plain() for c in curves] for m, curves in runs.items()},
        },
    )


def step_seconds(work: recipe.Work, method: str) -> float:
    """Median seconds of a step over all seeds: writing, scoring, update and the push of the weights."""
    rows = [row for s in SEEDS for row in read_metrics(work.run(stage_name(method, s)).metrics) if row["step"] > 1]
    phases = ("generate", "score", "update", "push")
    return statistics.median(sum(row.get(f"perf/{p}_s", 0.0) for p in phases) for row in rows)


def speed_table(
    runs: Mapping[str, Sequence[recipe.Curve]],
    needed: Mapping[str, Sequence[float]],
    level: float,
    seconds: Mapping[str, float],
) -> recipe.Table:
    """A row per estimator."""
    rows = tuple(
        (
            m, steps_text(needed[m]), f"{curves[0].steps[-1]:.0f}",
            recipe.span([c.accuracy[-1] * 100 for c in curves], 1), recipe.span([c.kl[-1] for c in curves], 3),
            seconds[m],
        )
        for m, curves in runs.items()
    )  # fmt: skip
    which = f"{level:.1%}, which is {SHARE:.0%} of the teacher's accuracy"
    title = f"Steps of 96 samples to {which}; mean and range of seeds {SEEDS}"
    columns = ("estimator", "steps to it", "steps in all", "accuracy % then", "reverse KL then", "seconds a step")
    return recipe.Table(title, columns, rows)


def noise_table(noise: Mapping[str, Mapping[str, float]], seconds: Mapping[str, float]) -> recipe.Table:
    """A row per estimator whose gradient was taken."""
    rows = tuple((m, n["variance"], n["cosine"], n["mean_cosine"], seconds[m]) for m, n in noise.items())
    title = (
        f"Gradients of the first student on {SETS} batches of 96 new completions of the same prompts: variance as a "
        "share of the squared mean gradient (of the exact estimator), cosine of one batch's gradient to that mean, "
        f"cosine of the mean of all {SETS} to it"
    )
    return recipe.Table(title, ("estimator", "variance", "cosine", "cosine of the mean", "seconds an update"), rows)


def sooner(needed: Mapping[str, Sequence[float]], noise: Mapping[str, Mapping[str, float]]) -> recipe.Claim:
    """Whether less noise means fewer steps."""
    names = ("sampled", "with baseline", EXACT)
    steps, variances = [recipe.mean(needed[m]) for m in names], [noise[m]["variance"] for m in names]
    falls = all(a > b for values in (steps, variances) for a, b in pairwise(values))  # infinite: not reached
    return recipe.Claim(
        "The less an estimator of the reverse KL varies, the fewer steps it needs.",
        "; ".join(f"{m}: {steps_text(needed[m])} steps, variance {noise[m]['variance']:.3g}" for m in names) + ".",
        "reproduced" if falls else "not reproduced",
    )


def collapse(runs: Mapping[str, Sequence[recipe.Curve]]) -> recipe.Claim:
    """Whether forgetting the tail ruins the student."""
    before, after, tail = (
        [c.accuracy[i] * 100 for c in runs[m]] for m, i in ((CUT, 0), (CUT, -1), (TAIL, -1))
    )  # fmt: skip
    worse = max(after) < min(before)
    return recipe.Claim(
        "A reverse KL truncated to the top-k without its tail collapses.",
        f"accuracy from {recipe.span(before, 1)} to {recipe.span(after, 1)}%, "
        f"with the tail to {recipe.span(tail, 1)}%.",
        "reproduced" if worse and min(tail) > max(before) else "not reproduced",
    )


def steps_text(values: Sequence[float]) -> str:
    """Mean and range, or that some seed never came there."""
    return recipe.span(values, 0) if all(map(math.isfinite, values)) else "not reached"


def plot_curves(data: Mapping[str, Any]) -> Any:
    """Accuracy and reverse KL over the steps."""
    drawn, (left, right) = recipe.figure(2)
    recipe.curves_over(left, data["methods"], "steps")
    left.axhline(data["level"], color="0.4", linewidth=0.8, linestyle=":")
    recipe.mark_axes(left, "steps", "accuracy")
    recipe.curves_over(right, data["methods"], "steps", "kl")
    right.set_yscale("log")
    recipe.mark_axes(right, "steps", "reverse KL, nats/token")
    return drawn


def plot_noise(data: Mapping[str, Any]) -> Any:
    """Variance of each estimator's gradient."""
    drawn, (ax,) = recipe.figure(width=6, height=2.4)
    names = list(data["noise"])
    ax.barh(names, [data["noise"][m]["variance"] for m in names], color=recipe.COLOURS[0])
    ax.set_xscale("log")
    ax.invert_yaxis()
    ax.set_xlabel("variance of a batch's gradient / squared mean gradient")
    return drawn


RECIPE = recipe.Recipe(stages=tuple(stages()), measure=measure, plots={"curves": plot_curves, "noise": plot_noise})
