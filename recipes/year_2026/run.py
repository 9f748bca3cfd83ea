"""Does what 2026 published help, beside plain reverse KL, forward KL and JSD?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from opd import recipe
from opd.recipe.result import Verdict
from opd.run.metrics import read_metrics

CONF = "{recipe}/year.yaml"
NEAR, FAR = "quickstart", "sums99"
TASKS: dict[str, tuple[str, ...]] = {
    NEAR: (),
    FAR: ("models=sums99", "data.prompts_per_step=128", "steps=80", "eval.every=20"),
}
SHARE = "objective.terms.all.tokens.first"
PLAIN = "reverse KL"
METHODS: dict[str, tuple[str, ...]] = {
    PLAIN: ("objective=reverse_kl",),
    "reverse KL, baseline": ("objective=reverse_kl", "objective.estimator=baseline"),
    "reverse KL, exact": ("objective=reverse_kl", "objective.estimator=exact"),
    "forward KL": ("objective=gkd", "objective.beta=0"),
    "JSD": ("objective=gkd", "objective.beta=0.5"),
    "entropy-aware": ("objective=entropy_aware",),
    "position": ("objective=position",),
    "half by entropy": ("objective=share", f"{SHARE}.by=entropy"),
    "half by divergence": ("objective=share", f"{SHARE}.by=divergence"),
    "half by both": ("objective=share", f"{SHARE}.by=both"),
    "tenth by both": ("objective=share", f"{SHARE}.by=both", f"{SHARE}.share=0.1"),
    "half by chance": ("objective=share", f"{SHARE}.by=random"),
    "cap": ("objective=share", "weight@objective.terms.all.tokens.first=cap"),
    "entropy kept": ("objective=entropy_kept",),
    "constant": ("objective=constant",),
    "shuffled": ("objective=shuffled",),
}
"""All from the same prompts and, but where a method is about them, as many samples of the same student."""
RATES = ("5e-4", "1.5e-3", "4e-3")
CHOSEN: dict[str, dict[str, str]] = {
    NEAR: dict.fromkeys(METHODS, "1.5e-3")
    | {"reverse KL, exact": "4e-3"}
    | dict.fromkeys(("half by chance", "constant", "shuffled"), "5e-4"),
    FAR: dict.fromkeys(METHODS, "1.5e-3")
    | dict.fromkeys(("reverse KL, exact", "forward KL", "JSD"), "4e-3")
    | dict.fromkeys(("position", "half by chance", "constant", "shuffled"), "5e-4"),
}
"""The best of each sweep on seed 0, by the accuracy after the last step; all fall to zero as a cosine."""
SEEDS = (0, 1, 2)
MOST = 0.9
"""Of the points that the plain method gains: the level at which FLOPs are compared."""
LATE = 10
"""The last steps, over which the entropy is a mean."""


def stage_name(task: str, method: str, rate: str, seed: int) -> str:
    """Where a run is."""
    return f"{task}-{method.lower().replace(',', '').replace(' ', '-')}-lr{rate}-seed{seed}"


def train(task: str, method: str, rate: str, seed: int) -> recipe.Train:
    """One run."""
    settings = (*TASKS[task], *METHODS[method], f"optim.lr={rate}", f"seed={seed}")
    return recipe.Train(stage_name(task, method, rate, seed), (f"conf={CONF}", *settings))


def stages() -> tuple[recipe.Train, ...]:
    """Every rate on the first seed, then the chosen ones on the others, one task after the other."""
    return tuple(
        stage
        for task in TASKS
        for stage in (
            *(train(task, m, rate, SEEDS[0]) for rate in RATES for m in METHODS),
            *(train(task, m, CHOSEN[task][m], seed) for seed in SEEDS[1:] for m in METHODS),
        )
    )


@dataclass(frozen=True)
class Found:
    """What a method came to on a task, seed by seed."""

    curves: tuple[recipe.Curve, ...]
    several: tuple[float, ...]
    """Prompts of which at least one of four samples is right, in %."""
    entropy: tuple[float, ...]
    """Of the student, in nats/token, over the last steps."""

    @property
    def last(self) -> tuple[float, ...]:
        """Accuracy after the last step, in %."""
        return tuple(100 * c.accuracy[-1] for c in self.curves)

    @property
    def kl(self) -> tuple[float, ...]:
        """Reverse KL to the teacher after the last step."""
        return tuple(c.kl[-1] for c in self.curves)

    def reaches(self, level: float) -> float:
        """FLOPs at which the mean curve comes to an accuracy; infinite where it does not."""
        flops, accuracy = (
            [recipe.mean(values) for values in zip(*(getattr(c, x) for c in self.curves), strict=True)]
            for x in ("flops", "accuracy")
        )
        return recipe.reaches(flops, accuracy, level)

    @property
    def gain(self) -> float:
        """Points of accuracy for every 1e11 FLOPs, teacher included, from the first step to the last."""
        return recipe.mean([100 * (c.accuracy[-1] - c.accuracy[0]) / (c.flops[-1] / 1e11) for c in self.curves])


def found(work: recipe.Work, task: str, method: str) -> Found:
    """Read the seeds' runs at the chosen rate."""
    names = [stage_name(task, method, CHOSEN[task][method], seed) for seed in SEEDS]
    rows = [read_metrics(work.run(name).metrics) for name in names]
    return Found(
        curves=tuple(work.curve(name) for name in names),
        several=tuple(100 * own[-1]["eval/pass@4"] for own in rows),
        entropy=tuple(recipe.mean([row["kl/student_entropy"] for row in own[-LATE:]]) for own in rows),
    )


def measure(work: recipe.Work) -> recipe.Result:
    """A table for each task, the sweeps, and what became of each claim."""
    all_found = {task: {m: found(work, task, m) for m in METHODS} for task in TASKS}
    return recipe.Result(
        tables=(*(outcome(task, of) for task, of in all_found.items()), *(sweep(work, task) for task in TASKS)),
        claims=tuple(claim(text, all_found) for text in CLAIMS),
        data={task: {m: [c.plain() for c in f.curves] for m, f in of.items()} for task, of in all_found.items()},
    )


def outcome(task: str, of: Mapping[str, Found]) -> recipe.Table:
    """A row per method; FLOPs as a share of what the plain method needs to most of what it learns."""
    begin = [100 * c.accuracy[0] for c in of[PLAIN].curves]
    start = recipe.span(begin)
    level = ((1 - MOST) * recipe.mean(begin) + MOST * recipe.mean(of[PLAIN].last)) / 100
    return recipe.Table(
        f"{task}: after the last step, mean and range of seeds {SEEDS}; the student begins at {start}%",
        ("method", "learning rate", "accuracy, %", "one of four right, %", "KL to the teacher, nats", "entropy, nats",
         f"FLOPs to {100 * level:.1f}%", "points for 1e11 FLOPs"),
        tuple(
            (m, CHOSEN[task][m], recipe.span(f.last), recipe.span(f.several), recipe.span(f.kl, 3),
             recipe.span(f.entropy, 3), told(f.reaches(level) / of[PLAIN].reaches(level)), f"{f.gain:.1f}")
            for m, f in of.items()
        ),
    )  # fmt: skip


def told(share: float) -> str:
    """A share as text."""
    return f"{share:.2f}" if math.isfinite(share) else "not reached"


def sweep(work: recipe.Work, task: str) -> recipe.Table:
    """What each rate came to on the first seed."""
    return recipe.Table(
        f"{task}: accuracy after the last step by learning rate, seed {SEEDS[0]}, in %",
        ("method", *RATES),
        tuple(
            (m, *(f"{100 * work.curve(stage_name(task, m, rate, SEEDS[0])).accuracy[-1]:.1f}" for rate in RATES))
            for m in METHODS
        ),
    )


@dataclass(frozen=True)
class Compared:
    """A published claim as a comparison of two methods: better by a measure, or, with slack, as good."""

    text: str
    better: str
    than: str
    by: Callable[[Found], Sequence[float]] = attrgetter("last")
    slack: float = 0.0
    """Points that it may stay behind, where the claim is that it is as good."""
    digits: int = 1


def claim(of: Compared, all_found: Mapping[str, Mapping[str, Found]]) -> recipe.Claim:
    """Reproduced where it holds on every task and seed, partly where it does in the mean of one task."""
    every, some, texts = True, False, []
    for task, methods in all_found.items():
        ours, theirs = of.by(methods[of.better]), of.by(methods[of.than])
        every &= all(a + of.slack > b for a, b in zip(ours, theirs, strict=True))
        some |= recipe.mean(ours) + of.slack > recipe.mean(theirs)
        texts.append(f"{task}: {recipe.span(ours, of.digits)} against {recipe.span(theirs, of.digits)}")
    verdict: Verdict = "reproduced" if every else "partly" if some else "not reproduced"
    return recipe.Claim(of.text, f"{of.better} and {of.than}: {'; '.join(texts)}.", verdict)


AS_GOOD = 2.0
"""Points of accuracy that count as none: half the interval of one evaluation."""
CLAIMS = (
    Compared(
        "Forward KL where the teacher is unsure keeps diversity (2603.07079).",
        "entropy-aware",
        PLAIN,
        attrgetter("entropy"),
        digits=3,
    ),
    Compared(
        "Forward KL where the teacher is unsure makes the student more accurate (2603.07079).",
        "entropy-aware",
        PLAIN,
    ),
    Compared(
        "Tokens that decide what follows should count more (2606.22600).",
        "position",
        PLAIN,
    ),
    Compared(
        "Half of the tokens, those of the highest entropy, are as good as all (2604.14084).",
        "half by entropy",
        PLAIN,
        slack=AS_GOOD,
    ),
    Compared(
        "A tenth of the tokens, by entropy and divergence, is as good as all (2604.14084).",
        "tenth by both",
        PLAIN,
        slack=AS_GOOD,
    ),
    Compared(
        "Tokens selected by entropy and divergence are worth more than any others (2604.14084).",
        "half by both",
        "half by chance",
    ),
    Compared(
        "The student keeps its entropy where advantages that contract it count less (2608.29846).",
        "entropy kept",
        PLAIN,
        attrgetter("entropy"),
        digits=3,
    ),
    Compared(
        "The student gets more accurate where advantages that contract its entropy count less (2608.29846).",
        "entropy kept",
        PLAIN,
    ),
    Compared(
        "It matters what the teacher says of which token (2608.31046).",
        PLAIN,
        "shuffled",
    ),
    Compared(
        "It matters what the teacher says at all (2608.31046).",
        PLAIN,
        "constant",
    ),
    Compared(
        "What takes the whole vocabulary learns more from the same tokens.",
        "reverse KL, exact",
        PLAIN,
    ),
)
GROUPS = {
    "plain": (PLAIN, "reverse KL, baseline", "reverse KL, exact", "forward KL", "JSD"),
    "which tokens": (PLAIN, "position", "half by entropy", "half by both", "tenth by both", "half by chance", "cap"),
    "entropy and controls": (PLAIN, "entropy-aware", "entropy kept", "shuffled", "constant"),
}
"""The plots' panels."""


def plot(task: str) -> Callable[[Mapping[str, Any]], Any]:
    """Accuracy of a task over FLOPs, a panel for each kind of method."""

    def draw(data: Mapping[str, Any]) -> Any:
        drawn, axes = recipe.figure(len(GROUPS), width=4.0)
        for ax, (title, methods) in zip(axes, GROUPS.items(), strict=True):
            recipe.curves_over(ax, {m: data[task][m] for m in methods}, "flops")
            ax.set_title(title, fontsize=9)
            ax.set_ylim(0, 1)
            recipe.mark_axes(ax, "FLOPs, teacher included", "accuracy")
        return drawn

    return draw


RECIPE = recipe.Recipe(stages=stages(), measure=measure, plots={task: plot(task) for task in TASKS})
