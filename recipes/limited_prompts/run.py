"""128 prompts, one teacher sample of each: does OPD generalise where SFT and supervised KD run out of data?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opd import recipe

CONF = "{recipe}/limited.yaml"
PROMPTS, HELD_OUT = 128, 500
SEEDS = (0, 1, 2)
"""Each has its own prompts, its own teacher samples and its own run."""
OWN = ("source=student",)
GIVEN = ("source=dataset",)
METHODS: dict[str, tuple[str, ...]] = {
    "OPD, forward KL": ("objective=gkd", "objective.beta=0", *OWN),
    "OPD, reverse KL": ("objective=gkd", "objective.beta=1", *OWN),
    "supervised KD": ("objective=gkd", "objective.beta=0", *GIVEN),
    "SFT": ("objective=sft", *GIVEN),
}
"""OPD: on the student's own samples; supervised KD differs from the first one in nothing but who wrote the tokens.

KD: forward KL, SFT: likelihood, on the one sample of the teacher's.
"""
OPD, OTHERS = ("OPD, forward KL", "OPD, reverse KL"), ("supervised KD", "SFT")
FRESH: dict[str, tuple[str, ...]] = {
    **{m: METHODS[m] for m in OPD},
    "supervised KD": ("objective=gkd", "objective.beta=0", "source=teacher"),
    "SFT": ("objective=sft", "source=teacher"),
}
"""The same where every step has new prompts, and new samples of the teacher's; seed 0 alone."""
FRESH_RATES = ("1e-3", "2e-3", "4e-3")
"""Each method is shown at its best one."""
RATES = ("3e-4", "1e-3", "2e-3", "4e-3", "8e-3")
CHOSEN = dict.fromkeys(OPD, "4e-3") | {"supervised KD": "1e-3", "SFT": "1e-3"}
"""The best of each sweep on seed 0, for the other seeds; all fall to zero as a cosine."""
CONSTANT = ("optim.schedule=constant", "optim.lr=1e-3")
"""One rate for all that never falls, which shows what happens when nobody stops in time."""
LAMBDAS = ("0", "0.25", "0.5", "0.75", "1")
BETAS = ("0", "0.1", "0.5", "0.9", "1")


def few(seed: int) -> tuple[str, ...]:
    """Settings of a run on the 128 prompts of a seed."""
    data = "data.tasks.sums"
    return (
        f"conf={CONF}", "data=limited", f"{data}.path={{work}}/prompts-seed{seed}.jsonl",
        f"{data}.eval_path={{work}}/held_out.jsonl", f"seed={seed}",
    )  # fmt: skip


def unlimited(seed: int) -> tuple[str, ...]:
    """Settings of a run on new prompts in every step; all else is the same."""
    return (f"conf={CONF}", f"seed={seed}")


def stage_name(kind: str, method: str, seed: int, rate: str = "") -> str:
    """Where a run is."""
    return f"{kind}-{method.lower().replace(', ', '-').replace(' ', '-')}{rate and f'-lr{rate}'}-seed{seed}"


def best_name(method: str, seed: int) -> str:
    """Where a run on the 128 prompts is that has its method's best rate."""
    return stage_name("few", method, seed, CHOSEN[method])


def sweep_stage(name: str, value: str) -> str:
    """Where a run of a sweep is; the ends of the sweeps are runs of the comparison."""
    ends = {("lambda", "1"): OPD[1], ("beta", "1"): OPD[1], ("beta", "0"): OPD[0]}
    return best_name(ends[name, value], 0) if (name, value) in ends else f"{name}-{value}"


def stages() -> Iterator[recipe.Call | recipe.Train]:
    """Data; every rate on the first seed; the chosen ones on the others; a constant one; unlimited data; sweeps."""
    yield recipe.Call("data", draw)
    for seed in SEEDS:
        for method, settings in METHODS.items():
            for rate in RATES if seed == SEEDS[0] else (CHOSEN[method],):
                name = stage_name("few", method, seed, rate)
                yield recipe.Train(name, (*few(seed), *settings, f"optim.lr={rate}"), ("data",))
    for seed in SEEDS:
        for method, settings in METHODS.items():
            yield recipe.Train(stage_name("constant", method, seed), (*few(seed), *settings, *CONSTANT), ("data",))
    for method, settings in FRESH.items():
        for rate in FRESH_RATES:
            name = stage_name("fresh", method, SEEDS[0], rate)
            yield recipe.Train(name, (*unlimited(SEEDS[0]), *settings, f"optim.lr={rate}"))
    sweep = (*few(0), "objective=gkd", "eval.every=0", f"optim.lr={CHOSEN[OPD[1]]}")
    for share in LAMBDAS[:-1]:
        shares = (f"source.shares.student={share}", f"source.shares.dataset={1 - float(share):g}")
        settings = (*sweep, "objective.beta=1", "source=mixed", *shares)
        yield recipe.Train(sweep_stage("lambda", share), settings, ("data",))
    for beta in BETAS[1:-1]:
        yield recipe.Train(sweep_stage("beta", beta), (*sweep, f"objective.beta={beta}", *OWN), ("data",))


def draw(work: recipe.Work) -> Mapping[str, Any]:
    """Draw 128 prompts per seed and one teacher sample of each, and 500 held-out prompts, into JSON lines."""
    from draw import write_all  # beside this file; here, as the rest needs no torch

    return write_all(CONF.replace("{recipe}", str(Path(__file__).parent)), work.path, SEEDS, PROMPTS, HELD_OUT)


def measure(work: recipe.Work) -> recipe.Result:
    """Compare what the methods come to after the last step, and draw up the sweeps."""
    runs = {
        "few": {m: [work.curve(best_name(m, s)) for s in SEEDS] for m in METHODS},
        "constant": {m: [work.curve(stage_name("constant", m, s)) for s in SEEDS] for m in METHODS},
        "fresh": {m: [better(work, m)] for m in METHODS},
    }
    drawn = work.json("data")
    sweeps = {
        "lambda": {v: work.curve(sweep_stage("lambda", v)) for v in LAMBDAS},
        "beta": {v: work.curve(sweep_stage("beta", v)) for v in BETAS},
    }
    start = runs["few"][OPD[0]][0]
    end = f"after {start.steps[-1]:.0f} steps, mean and range of seeds {SEEDS}"
    right = ", ".join(f"{v:.1%}" for v in drawn["samples"])
    ends = f"the student begins at {start.accuracy[0]:.1%}, the teacher has {drawn['teacher']:.1%}"
    fixed = f"{PROMPTS} prompts, one teacher sample of each ({right} of them right), {HELD_OUT} held-out prompts"
    return recipe.Result(
        tables=(
            compared(f"Each at its own best learning rate: {fixed}, {end}; {ends}", runs["few"]),
            compared(f"All at a constant 1e-3: the same prompts, {end}", runs["constant"]),
            compared(f"New prompts and new teacher samples in every step, seed {SEEDS[0]}", runs["fresh"]),
            rates(work),
            *(swept(name, values) for name, values in sweeps.items()),
        ),
        claims=(claim(runs["few"]), no_help(runs["fresh"])),
        data={
            **{kind: {m: [c.plain() for c in of] for m, of in methods.items()} for kind, methods in runs.items()},
            **{name: {v: c.plain() for v, c in values.items()} for name, values in sweeps.items()},
            "teacher": drawn["teacher"],
        },
    )


def better(work: recipe.Work, method: str) -> recipe.Curve:
    """The run with unlimited data that ends highest, of those with one rate each."""
    curves = (work.curve(stage_name("fresh", method, SEEDS[0], rate)) for rate in FRESH_RATES)
    return max(curves, key=lambda c: c.accuracy[-1])


def rates(work: recipe.Work) -> recipe.Table:
    """What each learning rate comes to on the first seed."""
    rows = tuple(
        (m, *(f"{work.curve(stage_name('few', m, SEEDS[0], r)).accuracy[-1]:.1%}" for r in RATES)) for m in METHODS
    )
    return recipe.Table("Sweep of the learning rate, seed 0: accuracy after the last step", ("method", *RATES), rows)


def compared(title: str, runs: Mapping[str, Sequence[recipe.Curve]]) -> recipe.Table:
    """Accuracy and KL of the methods, and how far each kind of OPD is above the others, seed by seed."""
    rows = []
    for m, curves in runs.items():
        above = (recipe.span(margins(runs, opd, m)) if m in OTHERS else "" for opd in OPD)
        rows.append((
            m, recipe.span([c.accuracy[-1] * 100 for c in curves]), recipe.span([c.best * 100 for c in curves]), *above,
            recipe.span([c.kl[-1] for c in curves], 3),
        ))  # fmt: skip
    columns = ("method", "accuracy %", "best on the way %", *(f"{opd}: above by" for opd in OPD), "reverse KL, nats")
    return recipe.Table(title, columns, tuple(rows))


def margins(runs: Mapping[str, Sequence[recipe.Curve]], opd: str, method: str) -> list[float]:
    """Points by which OPD ends above a method, by seed."""
    return [(a.accuracy[-1] - b.accuracy[-1]) * 100 for a, b in zip(runs[opd], runs[method], strict=True)]


def swept(name: str, runs: Mapping[str, recipe.Curve]) -> recipe.Table:
    """Accuracy of each value of a sweep, which has one seed, with the interval over prompts."""
    what = {
        "lambda": "Share of the student's own samples (lambda), the others are the teacher's; reverse KL",
        "beta": "Divergence (beta: 0 forward KL, 0.5 JSD, 1 reverse KL) on the student's own samples",
    }[name]
    rows = tuple((v, f"{c.accuracy[-1]:.1%} [{c.low[-1]:.1%}, {c.high[-1]:.1%}]", c.kl[-1]) for v, c in runs.items())
    title = f"{what}; {PROMPTS} prompts, seed 0 alone, 95% interval over held-out prompts"
    return recipe.Table(title, (name, "accuracy", "reverse KL, nats/token"), rows)


def ahead(runs: Mapping[str, Sequence[recipe.Curve]], opd: str) -> tuple[dict[str, list[float]], str]:
    """Points by which OPD ends above the others, and the same in words."""
    above = {m: margins(runs, opd, m) for m in OTHERS}
    return above, f"{opd}: " + ", ".join(f"{recipe.span(values)} above {m}" for m, values in above.items()) + "."


def claim(runs: Mapping[str, Sequence[recipe.Curve]]) -> recipe.Claim:
    """Whether on-policy data generalises where fixed data runs out; judged by OPD and KD with the same divergence."""
    above, text = ahead(runs, OPD[0])
    least, always = min(map(recipe.mean, above.values())), min(map(min, above.values())) > 0
    return recipe.Claim(
        "Where the data is little and fixed, OPD ends at least 10 points above SFT and supervised KD.",
        f"{text} {ahead(runs, OPD[1])[1]}",
        "reproduced" if least >= 10 and always else "partly" if always else "not reproduced",
    )


def no_help(runs: Mapping[str, Sequence[recipe.Curve]]) -> recipe.Claim:
    """Whether the advantage goes away with unlimited data."""
    found = [ahead(runs, opd) for opd in OPD]
    most = max(recipe.mean(values) for above, _ in found for values in above.values())
    return recipe.Claim(
        "Where the teacher's data never runs out, OPD has no such advantage (below 10 points).",
        " ".join(text for _, text in found),
        "reproduced" if most < 10 else "not reproduced",
    )


PANELS = {"few": "128 prompts, best rates", "constant": "128 prompts, constant rate", "fresh": "new prompts every step"}


def plot_curves(data: Mapping[str, Any]) -> Any:
    """Accuracy over the steps, with little data and with all that one wants."""
    drawn, axes = recipe.figure(len(PANELS), width=3.8)
    for ax, (kind, title) in zip(axes, PANELS.items(), strict=True):
        recipe.curves_over(ax, data[kind], "steps")
        ax.axhline(data["teacher"], color="0.4", linewidth=0.8, linestyle=":")
        ax.set_title(title, fontsize=9)
        ax.set_ylim(0.1, 1.02)
        recipe.mark_axes(ax, "steps", "accuracy")
    return drawn


def plot_sweep(name: str, title: str) -> Callable[[Mapping[str, Any]], Any]:
    """Accuracy after the last step over the values of a sweep."""

    def plot(data: Mapping[str, Any]) -> Any:
        drawn, (ax,) = recipe.figure()
        y, low, high = ([c[key][-1] for c in data[name].values()] for key in ("accuracy", "low", "high"))
        bars = [[v - a for v, a in zip(y, low, strict=True)], [b - v for v, b in zip(y, high, strict=True)]]
        ax.errorbar(
            [float(v) for v in data[name]], y, yerr=bars, capsize=3, label="seed 0, 95% over prompts", **recipe.style(0)
        )
        recipe.mark_axes(ax, title, "accuracy")
        return drawn

    return plot


GSM8K = "conf=gkd_gsm8k"
FULL = (
    *(
        recipe.Train(f"lambda-{share}", (GSM8K, f"source.shares={{student: {share}, dataset: {1 - float(share):g}}}"))
        for share in ("0", "0.5", "1")
    ),
    recipe.Train("sft", (GSM8K, "objective=sft", "source=dataset")),
)
PUBLISHED = "on GSM8K nothing was found as text; T5 models there, Qwen2.5 here (Agarwal et al., 2024)"
RECIPE = recipe.Recipe(
    stages=tuple(stages()),
    measure=measure,
    plots={
        "curves": plot_curves,
        "lambda": plot_sweep("lambda", "lambda: share of the student's own samples"),
        "beta": plot_sweep("beta", "beta: 0 forward KL, 1 reverse KL"),
    },
    full=FULL,
    published=PUBLISHED,
)
