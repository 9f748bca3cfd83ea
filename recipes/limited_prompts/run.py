"""128 prompts, one teacher sample of each: does OPD generalise where SFT and supervised KD run out of data?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opd.recipe import (
    Call,
    Claim,
    Curve,
    Recipe,
    Result,
    Table,
    Train,
    Work,
    curves_over,
    figure,
    mark_axes,
    mean,
    span,
    style,
)

CONF = "{recipe}/limited.yaml"
PROMPTS, HELD_OUT = 128, 500
SEEDS = (0, 1, 2)
"""Each has its own prompts, its own teacher samples and its own run."""
FRESH_SEEDS = (0,)
"""Of the runs whose data does not run out."""
OWN = ("source=student",)
GIVEN = ("source=dataset",)
METHODS: dict[str, tuple[str, ...]] = {
    "OPD": ("objective=gkd", "objective.beta=1", *OWN),
    "supervised KD": ("objective=gkd", "objective.beta=0", *GIVEN),
    "SFT": ("objective=sft", *GIVEN),
}
"""OPD: reverse KL on the student's own samples. KD: forward KL, SFT: likelihood, on the one sample of the teacher's."""
FRESH: dict[str, tuple[str, ...]] = {
    "OPD": METHODS["OPD"],
    "supervised KD": ("objective=gkd", "objective.beta=0", "source=teacher"),
    "SFT": ("objective=sft", "source=teacher"),
}
"""The same where every step has new prompts, and new samples of the teacher's."""
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


def stage_name(kind: str, method: str, seed: int) -> str:
    """Where a run is."""
    return f"{kind}-{method.lower().replace(' ', '-')}-seed{seed}"


def sweep_stage(name: str, value: str) -> str:
    """Where a run of a sweep is; the last value of both sweeps is OPD itself."""
    return stage_name("few", "OPD", 0) if value == "1" else f"{name}-{value}"


def stages() -> Iterator[Call | Train]:
    """Data first, then the comparison, seed by seed, then the case of unlimited data, and the sweeps."""
    yield Call("data", draw)
    for seed in SEEDS:
        for method, settings in METHODS.items():
            yield Train(stage_name("few", method, seed), (*few(seed), *settings), ("data",))
    for seed in FRESH_SEEDS:
        for method, settings in FRESH.items():
            yield Train(stage_name("fresh", method, seed), (*unlimited(seed), *settings))
    for share in LAMBDAS[:-1]:
        shares = (f"source.shares.student={share}", f"source.shares.dataset={1 - float(share):g}")
        settings = (*few(0), "objective=gkd", "objective.beta=1", "eval.every=0", "source=mixed", *shares)
        yield Train(sweep_stage("lambda", share), settings, ("data",))
    for beta in BETAS[:-1]:
        settings = (*few(0), "objective=gkd", f"objective.beta={beta}", "eval.every=0", *OWN)
        yield Train(sweep_stage("beta", beta), settings, ("data",))


def draw(work: Work) -> Mapping[str, Any]:
    """Draw 128 prompts per seed and one teacher sample of each, and 500 held-out prompts, into JSON lines."""
    from draw import write_all  # beside this file; here, as the rest needs no torch

    return write_all(CONF.replace("{recipe}", str(Path(__file__).parent)), work.path, SEEDS, PROMPTS, HELD_OUT)


def measure(work: Work) -> Result:
    """Compare what the methods come to after the last step, and draw up the sweeps."""
    few_runs = {m: [work.curve(stage_name("few", m, s)) for s in SEEDS] for m in METHODS}
    fresh_runs = {m: [work.curve(stage_name("fresh", m, s)) for s in FRESH_SEEDS] for m in METHODS}
    drawn = work.json("data")
    sweeps = {
        "lambda": {v: work.curve(sweep_stage("lambda", v)) for v in LAMBDAS},
        "beta": {v: work.curve(sweep_stage("beta", v)) for v in BETAS},
    }
    end = f"after {few_runs['OPD'][0].steps[-1]:.0f} steps"
    right = ", ".join(f"{v:.1%}" for v in drawn["samples"])
    ends = f"the student begins at {few_runs['OPD'][0].accuracy[0]:.1%}, the teacher has {drawn['teacher']:.1%}"
    fixed = f"{PROMPTS} prompts, one teacher sample of each ({right} of them right)"
    return Result(
        tables=(
            compared(f"{fixed}; {HELD_OUT} held-out prompts {end}, mean and range of seeds {SEEDS}; {ends}", few_runs),
            compared(f"New prompts and new teacher samples in every step; {end}, seeds {FRESH_SEEDS}", fresh_runs),
            *(swept(name, runs) for name, runs in sweeps.items()),
        ),
        claims=(claim(few_runs), no_help(fresh_runs)),
        data={
            "few": {m: [c.plain() for c in runs] for m, runs in few_runs.items()},
            "fresh": {m: [c.plain() for c in runs] for m, runs in fresh_runs.items()},
            **{name: {v: c.plain() for v, c in runs.items()} for name, runs in sweeps.items()},
            "teacher": drawn["teacher"],
        },
    )


def compared(title: str, runs: Mapping[str, Sequence[Curve]]) -> Table:
    """Accuracy and KL of the methods, and how far OPD is above, seed by seed."""
    rows = []
    for m, curves in runs.items():
        above = span(margins(runs, m)) if m != "OPD" else ""
        rows.append((
            m, span([c.accuracy[-1] * 100 for c in curves]), span([c.best * 100 for c in curves]), above,
            span([c.kl[-1] for c in curves], 3),
        ))  # fmt: skip
    columns = ("method", "accuracy %", "best on the way %", "OPD is above by", "reverse KL, nats/token")
    return Table(title, columns, tuple(rows))


def margins(runs: Mapping[str, Sequence[Curve]], method: str) -> list[float]:
    """Points by which OPD ends above a method, by seed."""
    return [(a.accuracy[-1] - b.accuracy[-1]) * 100 for a, b in zip(runs["OPD"], runs[method], strict=True)]


def swept(name: str, runs: Mapping[str, Curve]) -> Table:
    """Accuracy of each value of a sweep, which has one seed, with the interval over prompts."""
    what = {
        "lambda": "Share of the student's own samples (lambda), the others are the teacher's; reverse KL",
        "beta": "Divergence (beta: 0 forward KL, 0.5 JSD, 1 reverse KL) on the student's own samples",
    }[name]
    rows = tuple((v, f"{c.accuracy[-1]:.1%} [{c.low[-1]:.1%}, {c.high[-1]:.1%}]", c.kl[-1]) for v, c in runs.items())
    title = f"{what}; {PROMPTS} prompts, seed 0 alone, 95% interval over held-out prompts"
    return Table(title, (name, "accuracy", "reverse KL, nats/token"), rows)


def ahead(runs: Mapping[str, Sequence[Curve]]) -> tuple[dict[str, list[float]], str]:
    """Points by which OPD ends above the others, and the same in words."""
    above = {m: margins(runs, m) for m in METHODS if m != "OPD"}
    return above, "; ".join(f"{span(values)} points above {m}" for m, values in above.items()) + "."


def claim(runs: Mapping[str, Sequence[Curve]]) -> Claim:
    """Whether on-policy data generalises where fixed data runs out."""
    above, text = ahead(runs)
    least, always = min(map(mean, above.values())), min(map(min, above.values())) > 0
    return Claim(
        "Where the data is little and fixed, OPD ends at least 10 points above SFT and supervised KD.",
        text,
        "reproduced" if least >= 10 and always else "partly" if least > 0 else "not reproduced",
    )


def no_help(runs: Mapping[str, Sequence[Curve]]) -> Claim:
    """Whether the advantage goes away with unlimited data."""
    above, text = ahead(runs)
    return Claim(
        "Where the teacher's data never runs out, OPD has no such advantage (below 10 points).",
        text,
        "reproduced" if max(map(mean, above.values())) < 10 else "not reproduced",
    )


def plot_curves(data: Mapping[str, Any]) -> Any:
    """Accuracy over the steps, with little data and with all that one wants."""
    drawn, axes = figure(2)
    for ax, (kind, title) in zip(
        axes, {"few": "128 prompts", "fresh": "new prompts in every step"}.items(), strict=True
    ):
        curves_over(ax, data[kind], "steps")
        ax.axhline(data["teacher"], color="0.4", linewidth=0.8, linestyle=":")
        ax.set_title(title, fontsize=9)
        ax.set_ylim(0.2, 1.02)
        mark_axes(ax, "steps", "accuracy")
    return drawn


def plot_sweep(name: str, title: str) -> Callable[[Mapping[str, Any]], Any]:
    """Accuracy after the last step over the values of a sweep."""

    def plot(data: Mapping[str, Any]) -> Any:
        drawn, (ax,) = figure()
        y, low, high = ([c[key][-1] for c in data[name].values()] for key in ("accuracy", "low", "high"))
        bars = [[v - a for v, a in zip(y, low, strict=True)], [b - v for v, b in zip(y, high, strict=True)]]
        ax.errorbar(
            [float(v) for v in data[name]], y, yerr=bars, capsize=3, label="seed 0, 95% over prompts", **style(0)
        )
        mark_axes(ax, title, "accuracy")
        return drawn

    return plot


GSM8K = "conf=gkd_gsm8k"
FULL = (
    *(
        Train(f"lambda-{share}", (GSM8K, f"source.shares={{student: {share}, dataset: {1 - float(share):g}}}"))
        for share in ("0", "0.5", "1")
    ),
    Train("sft", (GSM8K, "objective=sft", "source=dataset")),
)
PUBLISHED = "on GSM8K nothing was found as text; T5 models there, Qwen2.5 here (Agarwal et al., 2024)"
RECIPE = Recipe(
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
