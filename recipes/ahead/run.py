"""What do samples of an older student do to the sampled reverse KL, to its correction, and to the forward KL?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from opd import recipe
from opd.recipe.result import Verdict
from opd.run.metrics import read_metrics

CONF = "{recipe}/ahead.yaml"
TASKS: dict[str, tuple[str, ...]] = {
    "quickstart": (),
    "sums99": ("models=sums99", "data.prompts_per_step=128"),
}
SAMPLED, NOW, FORWARD, EXACT = "sampled", "now", "forward", "exact"
OBJECTIVES: dict[str, tuple[str, ...]] = {
    SAMPLED: ("objective=reverse_kl", "objective.student=sampled"),
    NOW: ("objective=reverse_kl", "objective.student=now"),
    FORWARD: ("objective=gkd", "objective.beta=0"),
    EXACT: ("objective=reverse_kl", "objective.estimator=exact"),
}
"""Reverse KL of sampled tokens, judged against the student that drew them or that of now; both KLs in full."""
SHOWN = {SAMPLED: "reverse KL, sampled", NOW: "reverse KL, now", FORWARD: "forward KL", EXACT: "reverse KL, exact"}
MOST = 4
GRID = {
    "quickstart": {SAMPLED: (0, 1, 2, MOST), NOW: (1, 2, MOST), FORWARD: (0, MOST), EXACT: (0, MOST)},
    "sums99": {SAMPLED: (0, 1, MOST), NOW: (1, MOST), FORWARD: (0, MOST)},
}
"""Steps ahead; with none, SAMPLED and NOW are one."""
RATES = {"quickstart": ("2.5e-4", "5e-4", "1e-3"), "sums99": ("5e-4", "1e-3", "2e-3")}
CHOSEN = {"quickstart": "5e-4", "sums99": "1e-3"}
"""The best of each sweep with nothing ahead, for all methods."""
SEEDS = (0, 1, 2)
SHARE = 0.9
"""Of the accuracy that the sampled reverse KL ends at with nothing ahead, that is to be reached."""
NOISE = 5.0
"""Points of accuracy that count as none: about the interval of one evaluation."""
HALF = 0.5
"""Of the points lost, that are to come back for the correction to count as one in part."""
MANY = (
    "Judged by the student of now on many tokens at each position (AsyncOPD: several samples; here, exact, the whole "
    "vocabulary), reverse KL tolerates stale samples."
)
PHASES = ("generate", "push", "score", "verify", "update")

Runs = Mapping[tuple[str, int], Sequence[recipe.Curve]]
"""The seeds' curves of one task, by method and steps ahead."""


def stage_name(task: str, method: str, ahead: int, rate: str, seed: int) -> str:
    """Where a run is."""
    return f"{task}-{method}-ahead{ahead}-lr{rate}-seed{seed}"


def train(task: str, method: str, ahead: int, rate: str, seed: int) -> recipe.Train:
    """One run."""
    settings = (*TASKS[task], *OBJECTIVES[method], f"devices.ahead={ahead}", f"optim.lr={rate}", f"seed={seed}")
    return recipe.Train(stage_name(task, method, ahead, rate, seed), (f"conf={CONF}", *settings))


def stages() -> tuple[recipe.Train, ...]:
    """Every rate with nothing ahead on the first seed, then all methods with the chosen ones, seed by seed."""
    sweep = [train(task, SAMPLED, 0, rate, SEEDS[0]) for task in TASKS for rate in RATES[task]]
    runs = [train(t, m, k, CHOSEN[t], seed) for t in TASKS for seed in SEEDS for m, k in grid(t)]
    return tuple({stage.name: stage for stage in (*sweep, *runs)}.values())


def grid(task: str) -> Iterator[tuple[str, int]]:
    """Methods and steps ahead of a task."""
    return ((method, ahead) for method, several in GRID[task].items() for ahead in several)


def measure(work: recipe.Work) -> recipe.Result:
    """Accuracy and KL at the end, and what it takes to come to what the sampled reverse KL does with nothing ahead."""
    phases = {task: quietest(work, task) for task in TASKS}
    runs = {task: {(m, k): curves(work, task, m, k, phases[task]) for m, k in grid(task)} for task in TASKS}
    return recipe.Result(
        tables=(
            *(outcome(work, task, of) for task, of in runs.items()),
            *(speed(task, of) for task, of in runs.items()),
            phase_table(phases),
            sweep_table(work),
        ),
        claims=(
            suffers(runs),
            mends(runs),
            tolerates(runs, EXACT, MANY),
            tolerates(runs, FORWARD, "Forward KL tolerates stale samples."),
        ),
        data={
            task: {named(*key): [c.plain() for c in seeds] for key, seeds in of.items()} for task, of in runs.items()
        },
    )


def quietest(work: recipe.Work, task: str) -> dict[str, float]:
    """Seconds of each phase, medians over the steps, of the run that others disturbed least.

    One for all methods, which cost the same: the vocabulary has 18 tokens.
    """
    found = [
        phase_medians(work, stage_name(task, m, k, CHOSEN[task], seed), k) for m, k in grid(task) for seed in SEEDS
    ]
    return min(found, key=lambda phases: sum(phases.values()))


def phase_medians(work: recipe.Work, stage: str, ahead: int) -> dict[str, float]:
    """Of one run: without the first step, which writes several, and the last ones, which have nothing left to write."""
    rows = read_metrics(work.run(stage).metrics)
    rows = [row for row in rows if 1 < row["step"] <= rows[-1]["step"] - ahead]
    return {phase: statistics.median(row[f"perf/{phase}_s"] for row in rows) for phase in PHASES}


def step_seconds(phases: Mapping[str, float], ahead: int) -> float:
    """A step in turn takes all phases after each other; ahead, as long as the engine or the learner needs."""
    engine = phases["generate"] + phases["push"]
    learner = phases["score"] + phases["verify"] + phases["update"]
    return max(engine, learner) if ahead else engine + learner


def curves(work: recipe.Work, task: str, method: str, ahead: int, phases: Mapping[str, float]) -> list[recipe.Curve]:
    """The seeds' curves, over the seconds that their steps would take with engines apart."""
    found = [work.curve(stage_name(task, method, ahead, CHOSEN[task], seed)) for seed in SEEDS]
    return [replace(c, seconds=tuple(s * step_seconds(phases, ahead) for s in c.steps)) for c in found]


def named(method: str, ahead: int) -> str:
    """As tables and plots name it."""
    return f"{SHOWN[method]}, {ahead} ahead"


def last(seeds: Sequence[recipe.Curve]) -> list[float]:
    """Accuracy of each seed after the last step, in %."""
    return [100 * c.accuracy[-1] for c in seeds]


def outcome(work: recipe.Work, task: str, runs: Runs) -> recipe.Table:
    """A row per method and steps ahead."""
    rows = tuple(
        (
            named(*key), recipe.span(last(seeds)), recipe.span([100 * c.best for c in seeds]),
            recipe.span([c.kl[-1] for c in seeds], 3), *ratios(work, task, *key),
        )
        for key, seeds in runs.items()
    )  # fmt: skip
    first = runs[SAMPLED, 0]
    title = (
        f"{task}, {first[0].steps[-1]:.0f} steps at a rate of {CHOSEN[task]}, mean and range of seeds {SEEDS}; the "
        f"student begins at {recipe.span([100 * c.accuracy[0] for c in first])}%, "
        f"{recipe.span([c.kl[0] for c in first], 3)} nats/token"
    )
    columns = (
        "method",
        "accuracy % at the end",
        "best",
        "reverse KL at the end",
        "largest pi / mu",
        "effective samples",
    )
    return recipe.Table(title, columns, rows)


def ratios(work: recipe.Work, task: str, method: str, ahead: int) -> tuple[str, str]:
    """Medians over all steps: of the largest ratio of a step, and of the share of samples that its ratios leave."""
    stages = [stage_name(task, method, ahead, CHOSEN[task], seed) for seed in SEEDS]
    rows = [row for stage in stages for row in read_metrics(work.run(stage).metrics) if row["step"] > ahead]
    largest, share = (statistics.median(row[f"optim/{name}"] for row in rows) for name in ("ratio_max", "ess"))
    return f"{largest:.1f}", f"{share:.0%}"


def speed(task: str, runs: Runs) -> recipe.Table:
    """What each method needs to come to a level, by its mean curve, and as a share of the sampled KL's in turn."""
    means = {key: [recipe.mean(v) for v in zip(*(c.accuracy for c in of), strict=True)] for key, of in runs.items()}
    level = SHARE * means[SAMPLED, 0][-1]
    steps = {key: recipe.reaches(of[0].steps, means[key], level) for key, of in runs.items()}
    seconds = {key: recipe.reaches(of[0].seconds, means[key], level) for key, of in runs.items()}
    rows = tuple(
        (named(*key), told(steps[key], 0), *(told(x[key] / x[SAMPLED, 0]) for x in (steps, seconds))) for key in runs
    )
    title = (
        f"{task}, to come to {level:.1%}, {SHARE:.0%} of what the sampled reverse KL ends at with nothing ahead: steps "
        "of the mean curves, and steps and seconds as a share of its own; seconds are computed as if engines were apart"
    )
    return recipe.Table(title, ("method", "steps", "share of the steps", "share of the seconds"), rows)


def told(value: float, digits: int = 2) -> str:
    """A number as text."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "not reached"


def phase_table(phases: Mapping[str, Mapping[str, float]]) -> recipe.Table:
    """What a step is made of."""
    rows = tuple(
        (task, *(of[phase] for phase in PHASES), step_seconds(of, 1) / step_seconds(of, 0))
        for task, of in phases.items()
    )
    title = "Seconds of a step's phases in one process, medians of the quietest run; a step ahead by one in turn"
    return recipe.Table(title, ("task", *PHASES, "ahead / in turn"), rows)


def sweep_table(work: recipe.Work) -> recipe.Table:
    """The rates with nothing ahead."""
    found = {t: [(r, work.curve(stage_name(t, SAMPLED, 0, r, SEEDS[0]))) for r in RATES[t]] for t in TASKS}
    rows = tuple((t, *(f"{r}: {100 * c.accuracy[-1]:.1f}, {c.kl[-1]:.3f}" for r, c in of)) for t, of in found.items())
    title = "Sweep of the learning rate, nothing ahead, seed 0: accuracy in % and reverse KL at the end"
    return recipe.Table(title, ("task", "lowest", "middle", "highest"), rows)


def lost(runs: Runs, method: str, to: str, ahead: int = MOST) -> float:
    """Points of accuracy at the end, some steps ahead, below another method with nothing ahead; mean of the seeds."""
    return recipe.mean(last(runs[to, 0])) - recipe.mean(last(runs[method, ahead]))


def suffers(runs: Mapping[str, Runs]) -> recipe.Claim:
    """Whether the sampled reverse KL loses more than noise, and every seed with old samples ends below all without."""
    worse = [
        lost(of, SAMPLED, SAMPLED) > NOISE and max(last(of[SAMPLED, MOST])) < min(last(of[SAMPLED, 0]))
        for of in runs.values()
    ]
    return recipe.Claim("Sampled reverse KL does not tolerate stale samples.", ends(runs, SAMPLED), verdict(worse))


def mends(runs: Mapping[str, Runs]) -> recipe.Claim:
    """Whether to judge the student of now gives back what is lost, but for noise; half of it somewhere: partly."""
    whole = [lost(of, NOW, SAMPLED, k) <= NOISE for of in runs.values() for m, k in of if m == NOW]
    back = {
        task: {k: 1 - lost(of, NOW, SAMPLED, k) / lost(of, SAMPLED, SAMPLED, k) for m, k in of if m == NOW}
        for task, of in runs.items()
    }
    half = any(share >= HALF for by_ahead in back.values() for share in by_ahead.values())
    shares = "; ".join(
        f"on {task} " + ", ".join(f"{share:.0%} {k} ahead" for k, share in by_ahead.items())
        for task, by_ahead in back.items()
    )
    return recipe.Claim(
        "Comparing the teacher with the student of now, in place of the one that wrote, mends it (AsyncOPD).",
        f"{ends(runs, NOW)} Of the points lost it gives back {shares}.",
        "reproduced" if all(whole) else "partly" if half else "not reproduced",
    )


def tolerates(runs: Mapping[str, Runs], method: str, text: str) -> recipe.Claim:
    """Whether a method loses no more than noise, on the tasks that it was tried on."""
    alike = [lost(of, method, method) <= NOISE for of in runs.values() if (method, MOST) in of]
    return recipe.Claim(text, ends(runs, method), verdict(alike))


def ends(runs: Mapping[str, Runs], method: str) -> str:
    """Where a method's seeds end on each task, by steps ahead."""
    first = SAMPLED if method == NOW else method
    found = {task: {k: of[m, k] for m, k in of if m == (method if k else first)} for task, of in runs.items()}
    texts = [
        f"{task}: " + ", ".join(
            f"{k} ahead {recipe.span(last(seeds))}% and {recipe.span([c.kl[-1] for c in seeds], 3)} nats"
            for k, seeds in by_ahead.items()
        )
        for task, by_ahead in found.items()
        if by_ahead
    ]  # fmt: skip
    return "; ".join(texts) + "."


def verdict(tasks: Sequence[bool]) -> Verdict:
    """On all tasks, on some, on none."""
    return "reproduced" if all(tasks) else "partly" if any(tasks) else "not reproduced"


def plot(task: str, y: str, name: str) -> Callable[[Mapping[str, Any]], Any]:
    """One column of a task's curves over the steps: sampled, corrected, and what takes the whole vocabulary."""
    panels = {
        "reverse KL, sampled": [(SAMPLED, k) for k in GRID[task][SAMPLED]],
        "reverse KL, judged by the student of now": [(SAMPLED, 0), *((NOW, k) for k in GRID[task][NOW])],
        "over the whole vocabulary": [(m, k) for m, k in grid(task) if m in (FORWARD, EXACT)],
    }

    def draw(data: Mapping[str, Any]) -> Any:
        drawn, axes = recipe.figure(len(panels), width=3.8)
        for ax, (title, keys) in zip(axes, panels.items(), strict=True):
            recipe.curves_over(ax, {named(*key): data[task][named(*key)] for key in keys}, "steps", y)
            ax.set_title(title, fontsize=9)
            if y == "kl":
                ax.set_yscale("log")
            recipe.mark_axes(ax, "steps", name)
        limits = [ax.get_ylim() for ax in axes]
        for ax in axes:
            ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        return drawn

    return draw


def plot_seconds(data: Mapping[str, Any]) -> Any:
    """Accuracy over computed seconds."""
    drawn, axes = recipe.figure(len(TASKS))
    for ax, task in zip(axes, TASKS, strict=True):
        shown = [named(m, k) for m, k in grid(task) if k in ((0,) if m == SAMPLED else (0, 1, MOST))]  # seven lines
        recipe.curves_over(ax, {key: data[task][key] for key in shown}, "seconds")
        ax.set_title(task, fontsize=9)
        recipe.mark_axes(ax, "seconds, computed from phases", "accuracy")
    return drawn


PLOTS = {
    "quickstart": plot("quickstart", "accuracy", "accuracy"),
    "quickstart_kl": plot("quickstart", "kl", "reverse KL, nats/token"),
    "sums99": plot("sums99", "accuracy", "accuracy"),
    "sums99_kl": plot("sums99", "kl", "reverse KL, nats/token"),
    "seconds": plot_seconds,
}
RECIPE = recipe.Recipe(stages=stages(), measure=measure, plots=PLOTS)
