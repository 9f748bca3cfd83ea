"""A pruned SmolLM2: is it healed better by OPD on its own samples, or by SFT on as many of the whole model's tokens?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from opd.recipe import (
    Claim,
    Evaluate,
    Recipe,
    Result,
    Stage,
    Table,
    Train,
    Work,
    curves_over,
    figure,
    mark_axes,
    mean,
)

STEPS = 20
SAME = (
    "conf=smollm2", f"steps={STEPS}", "eval.every=10", "eval.size=40", "eval.n=2", f"checkpoint.every={STEPS}",
    "log.rollouts_every=0", "log.exact_kl=false",
)  # fmt: skip
METHODS: dict[str, tuple[str, ...]] = {"OPD": (), "SFT": ("objective=sft", "source=teacher")}
"""OPD: reverse KL over the whole vocabulary on the student's samples; SFT: the tokens of the whole model's samples."""
SEEDS = (0,)
TEXT = ("data=passages", "data.tasks.passages.path={recipe}/passages.jsonl", "eval.size=24", "eval.max_tokens=160")
SHOWN = 3
"""Prompts whose answers are shown."""


def stages() -> tuple[Stage, ...]:
    """Train with each method, then measure the text that nobody of them has seen."""
    pairs = [(m, s) for s in SEEDS for m in METHODS]
    runs = [Train(run_name(m, s), (*SAME, *METHODS[m], f"seed={s}")) for m, s in pairs]
    texts = [
        Evaluate(f"text-{run_name(m, s)}", (f"run={{work}}/{run_name(m, s)}", *TEXT), after=(run_name(m, s),))
        for m, s in pairs
    ]
    return (*runs, *texts)


def run_name(method: str, seed: int) -> str:
    """Where a run is."""
    return f"{method.lower()}-seed{seed}"


def measure(work: Work) -> Result:
    """Compare reverse KL, perplexity and cost, and lay answers side by side."""
    curves = {m: [work.curve(run_name(m, s)) for s in SEEDS] for m in METHODS}
    texts = {m: [work.json(f"text-{run_name(m, s)}") for s in SEEDS] for m in METHODS}
    after = f"student after {STEPS} steps"
    first = texts["OPD"][0]
    rows: list[tuple[str | float, ...]] = [
        ("pruned", span([c.kl[0] for c in curves["OPD"]]), *perplexities([first], "student before"), "", "", "")
    ]
    for m in METHODS:
        spent = [work.run(run_name(m, s)).metrics.read_text(encoding="utf-8").splitlines()[-1] for s in SEEDS]
        costs = [json.loads(line) for line in spent]
        rows.append((
            m, span([c.kl[-1] for c in curves[m]]), *perplexities(texts[m], after),
            mean([c["cost/update_tokens"] for c in costs]), f"{mean([c['cost/flops'] for c in costs]):.2g}",
            mean([c.seconds[-1] for c in curves[m]]),
        ))  # fmt: skip
    rows.append(("whole", "0", *perplexities([first], "teacher"), "", "", ""))
    kl = {m: [c.kl[-1] for c in curves[m]] for m in METHODS}
    text = {m: [t[after]["eval/perplexity"] for t in texts[m]] for m in METHODS}
    return Result(
        tables=(
            Table(
                f"After {STEPS} steps of 16 samples, {told()}: reverse KL to the whole model on "
                "40 held-out prompts, 2 samples each, and exact perplexity of 24 passages of text",
                ("", "KL, nats/token", "perplexity", "bits/byte", "trained tokens", "FLOPs", "seconds"), tuple(rows),
            ),
            samples(work),
        ),
        claims=(
            Claim(
                "OPD brings a pruned model closer to the whole one than SFT with the same number of tokens (reverse KL "
                "on the student's own samples).",
                f"{span(kl['OPD'])} against {span(kl['SFT'])} nats a token.", verdict(kl),
            ),
            Claim(
                "The same holds for text that neither has written (perplexity).",
                f"{span(text['OPD'])} against {span(text['SFT'])}.", verdict(text),
            ),
        ),
        data={m: [c.plain() for c in of] for m, of in curves.items()},
    )  # fmt: skip


def told() -> str:
    """Which seeds the figures are of."""
    return f"seed {SEEDS[0]}" if len(SEEDS) == 1 else f"mean and range of seeds {SEEDS}"


def perplexities(found: Sequence[Mapping[str, Mapping[str, float]]], row: str) -> tuple[str, str]:
    """Perplexity and bits per byte of the passages."""
    return tuple(span([f[row][f"eval/{name}"] for f in found]) for name in ("perplexity", "bits_per_byte"))  # type: ignore[return-value]


def verdict(values: Mapping[str, Sequence[float]]) -> Any:
    """Whether OPD's values are lower on every seed, or in the mean."""
    if max(values["OPD"]) < min(values["SFT"]):
        return "reproduced"
    return "partly" if mean(values["OPD"]) < mean(values["SFT"]) else "not reproduced"


def samples(work: Work) -> Table:
    """What the models of the first seed say to the first held-out prompts."""
    files = {
        "pruned": ("OPD", 0), "OPD": ("OPD", STEPS), "SFT": ("SFT", STEPS),
    }  # fmt: skip
    said = {
        name: [json.loads(line) for line in evaluated(work, m, step).splitlines()] for name, (m, step) in files.items()
    }
    rows = [
        (one(said["pruned"][i]["prompt"]), *(one(said[name][i]["completion"]) for name in files))
        for i in range(0, 2 * SHOWN, 2)
    ]
    return Table(
        f"Samples at temperature 1, cut at 48 tokens, of seed {SEEDS[0]}: the first {SHOWN} held-out prompts",
        ("prompt", *files), tuple(rows),
    )  # fmt: skip


def evaluated(work: Work, method: str, step: int) -> str:
    """The completions of an evaluation in training."""
    return (work.run(run_name(method, SEEDS[0])).evals / f"student_step_{step:06d}.jsonl").read_text(encoding="utf-8")


def one(text: str) -> str:
    """A text as a cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def span(values: Sequence[float]) -> str:
    """Mean and range; the value alone where there is one."""
    middle = f"{mean(values):.3g}"
    return middle if len(values) == 1 else f"{middle} [{min(values):.3g}, {max(values):.3g}]"


def plot(data: Mapping[str, Any]) -> Any:
    """Reverse KL over steps."""
    drawn, axes = figure()
    curves_over(axes[0], data, "steps", "kl")
    mark_axes(axes[0], "optimizer steps", "reverse KL, nats/token")
    return drawn


RECIPE = Recipe(stages=stages(), measure=measure, plots={"kl": plot})
