"""A pruned SmolLM2: is it healed better by OPD on its own samples, or by SFT on as many of the whole model's tokens?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from opd.metrics import read_metrics
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

STEPS = 30
METHODS: dict[str, tuple[str, ...]] = {"OPD": (), "SFT": ("objective=sft", "source=teacher", "log.exact_kl=false")}
"""OPD: reverse KL over the whole vocabulary on the student's samples; SFT: the tokens of the whole model's samples."""
SEEDS = {"OPD": (0, 1, 2), "SFT": (0,)}
TEXT = ("data=passages", "data.tasks.passages.path={recipe}/passages.jsonl", "eval.size=24", "eval.max_tokens=160")
"""Half of the 24 are everyday prompts, the run's own task, which `data=` adds to and does not replace."""
READ = 0
"""The seed whose models are measured on text, and shown."""
SHOWN = 3
"""Prompts whose answers are shown."""


def stages() -> tuple[Stage, ...]:
    """Train with each method, then measure the text that none of them has seen."""
    runs = [
        Train(run_name(m, s), ("conf=smollm2", f"steps={STEPS}", *own, f"seed={s}"))
        for m, own in METHODS.items() for s in SEEDS[m]
    ]  # fmt: skip
    texts = [
        Evaluate(f"text-{run_name(m, READ)}", (f"run={{work}}/{run_name(m, READ)}", *TEXT), after=(run_name(m, READ),))
        for m in METHODS
    ]
    return (*runs, *texts)


def run_name(method: str, seed: int) -> str:
    """Where a run is."""
    return f"{method.lower()}-seed{seed}"


def measure(work: Work) -> Result:
    """Compare reverse KL and perplexity, and lay answers side by side."""
    curves = {m: [work.curve(run_name(m, s)) for s in SEEDS[m]] for m in METHODS}
    texts = {m: work.json(f"text-{run_name(m, READ)}") for m in METHODS}
    after = f"student after {STEPS} steps"
    kl = {m: [c.kl[-1] for c in of] for m, of in curves.items()}
    text = {m: [t[after]["eval/perplexity"]] for m, t in texts.items()}
    rows: list[tuple[str | float, ...]] = [
        ("pruned", span([c.kl[0] for c in curves["OPD"]]), *on_text(texts["OPD"], "student before"), "")
    ]
    rows += [(named(m), span(kl[m]), *on_text(texts[m], after), trained(work, m)) for m in METHODS]
    rows.append(("whole", "0", *on_text(texts["OPD"], "teacher"), ""))
    return Result(
        tables=(
            Table(
                f"After {STEPS} steps of 16 samples: reverse KL to the whole model on 32 held-out prompts, mean and "
                f"range of the seeds, and exact perplexity of 12 passages of text, seed {READ}",
                ("", "reverse KL, nats/token", "perplexity", "bits/byte", "trained tokens"), tuple(rows),
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
                f"{span(text['OPD'])} against {span(text['SFT'])}, one seed{alike(text)}.", verdict(text),
            ),
        ),
        data={m: [c.plain() for c in of] for m, of in curves.items()},
    )  # fmt: skip


def named(method: str) -> str:
    """A method and its seeds."""
    return f"{method}, seed{'s' * (len(SEEDS[method]) > 1)} {', '.join(map(str, SEEDS[method]))}"


def trained(work: Work, method: str) -> float:
    """Tokens that were trained on, mean of the seeds."""
    runs = [read_metrics(work.run(run_name(method, s)).metrics) for s in SEEDS[method]]
    return mean([sum(row.get("optim/trained_tokens", 0.0) for row in rows) for rows in runs])


def on_text(found: Mapping[str, Mapping[str, float]], row: str) -> tuple[float, float]:
    """Perplexity and bits per byte of the passages."""
    return found[row]["eval/perplexity"], found[row]["eval/bits_per_byte"]


def verdict(values: Mapping[str, Sequence[float]]) -> Any:
    """Whether OPD's values are lower on every seed, or in the mean."""
    if max(values["OPD"]) < min(values["SFT"]):
        return "reproduced"
    return "partly" if mean(values["OPD"]) < mean(values["SFT"]) else "not reproduced"


def alike(values: Mapping[str, Sequence[float]]) -> str:
    """Says so where the means differ by less than a twentieth, which one seed and a dozen texts cannot tell apart."""
    near = abs(mean(values["OPD"]) / mean(values["SFT"]) - 1) < 0.05
    return ", too close to tell apart" if near else ""


def samples(work: Work) -> Table:
    """What the models of the first seed say to the first held-out prompts."""
    files = {
        "pruned": ("OPD", 0), "OPD": ("OPD", STEPS), "SFT": ("SFT", STEPS),
    }  # fmt: skip
    said = {
        name: [json.loads(line) for line in evaluated(work, m, step).splitlines()] for name, (m, step) in files.items()
    }
    rows = [
        (one(said["pruned"][i]["prompt"]), *(one(said[name][i]["completion"]) for name in files)) for i in range(SHOWN)
    ]
    return Table(
        f"Samples at temperature 1, cut at 48 tokens, of seed {READ}: the first {SHOWN} held-out prompts",
        ("prompt", *files), tuple(rows),
    )  # fmt: skip


def evaluated(work: Work, method: str, step: int) -> str:
    """The completions of an evaluation in training."""
    return (work.run(run_name(method, READ)).evals / f"student_step_{step:06d}.jsonl").read_text(encoding="utf-8")


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


WHOLE = ("conf={recipe}/full.yaml",)
FULL = (
    Train("opd", WHOLE),
    Train("sft", (*WHOLE, "objective=sft", "source=teacher")),
)
PUBLISHED = "no run of just this is known to us"
RECIPE = Recipe(stages=stages(), measure=measure, plots={"kl": plot}, full=FULL, published=PUBLISHED)
