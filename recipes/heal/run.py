"""A pruned SmolLM2: is it healed better by OPD on its own samples, or by SFT on as many of the whole model's tokens?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opd import recipe
from opd.run.metrics import read_metrics

STEPS = 30
METHODS: dict[str, tuple[str, ...]] = {"OPD": (), "SFT": ("objective=sft", "source=teacher", "log.exact_kl=false")}
"""OPD: reverse KL over the whole vocabulary on the student's samples; SFT: the tokens of the whole model's samples."""
RATES = {"OPD": ("2e-4",), "SFT": ("2e-4", "4e-4")}
"""OPD's was found before: 1e-4 comes to 0.826 nats on seed 0."""
CHOSEN = {"OPD": "2e-4", "SFT": "2e-4"}
"""The best of each sweep on seed 0, by the reverse KL, for the other seeds."""
SEEDS = (0,)
PASSAGES = 24
TEXT = ("data=passages", "data.tasks.passages.path={recipe}/passages.jsonl", f"eval.size={PASSAGES}")
SHOWN = 3
"""Prompts whose answers are shown, by the models of the first seed."""
AFTER = f"student after {STEPS} steps"


def stages() -> Iterator[recipe.Stage]:
    """Every rate on the first seed, the chosen ones on the others, and each model on text that none has seen."""
    runs = [(m, rate, s) for s in SEEDS for m in METHODS for rate in RATES[m] if s == SEEDS[0] or rate == CHOSEN[m]]
    for m, rate, seed in runs:
        name = run_name(m, rate, seed)
        own = (f"steps={STEPS}", *METHODS[m], f"optim.lr={rate}", f"seed={seed}")
        yield recipe.Train(name, ("conf=smollm2", *own))
        yield recipe.Evaluate(f"text-{name}", (f"run={{work}}/{name}", *TEXT), after=(name,))


def run_name(method: str, rate: str, seed: int) -> str:
    """Where a run is."""
    return f"{method.lower()}-lr{rate}-seed{seed}"


def measure(work: recipe.Work) -> recipe.Result:
    """Compare reverse KL and perplexity, and lay answers side by side."""
    best = {m: [run_name(m, CHOSEN[m], s) for s in SEEDS] for m in METHODS}
    curves = {m: [work.curve(name) for name in names] for m, names in best.items()}
    texts = {m: [work.json(f"text-{name}") for name in names] for m, names in best.items()}
    kl = {m: [c.kl[-1] for c in of] for m, of in curves.items()}
    text = {m: {key: [t[AFTER][key] for t in of] for key in ON_TEXT} for m, of in texts.items()}
    start, whole = (  # a model has no KL to itself
        [texts["OPD"][0][row].get(key, 0.0) for key in ON_TEXT] for row in ("student before", "teacher")
    )
    rows: list[tuple[str | float, ...]] = [("pruned", "", recipe.span([c.kl[0] for c in curves["OPD"]], 3), *start, "")]
    rows += [
        (m, CHOSEN[m], *(recipe.span(values, 3) for values in (kl[m], *(text[m][key] for key in ON_TEXT))),
         trained(work, best[m]))
        for m in METHODS
    ]  # fmt: skip
    rows.append(("whole", "", "0", *whole, ""))
    return recipe.Result(
        tables=(
            recipe.Table(
                f"After {STEPS} steps of 16 samples, seed {', '.join(map(str, SEEDS))}: reverse KL to the whole model "
                f"on the student's own samples (32 held-out prompts), and what is exact on {PASSAGES} passages of text",
                ("", "learning rate", "reverse KL, nats/token", *ON_TEXT.values(), "trained tokens"), tuple(rows),
            ),
            swept(work),
            samples(work),
        ),
        claims=(
            recipe.Claim(
                "OPD brings a pruned model closer to the whole one than SFT with the same number of tokens (reverse KL "
                "on the student's own samples).",
                f"{recipe.span(kl['OPD'], 3)} against {recipe.span(kl['SFT'], 3)} nats a token.", verdict(kl),
            ),
            *(on_text(text, key) for key in ("eval/text_kl", "eval/perplexity")),
        ),
        data={m: [c.plain() for c in of] for m, of in curves.items()},
    )  # fmt: skip


ON_TEXT = {
    "eval/text_kl": "reverse KL on text",
    "eval/text_kl_forward": "forward KL on text",
    "eval/perplexity": "perplexity",
    "eval/bits_per_byte": "bits/byte",
}


def on_text(text: Mapping[str, Mapping[str, Sequence[float]]], key: str) -> recipe.Claim:
    """Whether the same holds where neither has written, by one of the exact figures."""
    values = {m: of[key] for m, of in text.items()}
    found = f"{recipe.span(values['OPD'], 3)} against {recipe.span(values['SFT'], 3)}{alike(values)}."
    text = f"The same holds for text that neither has written ({ON_TEXT[key]})."
    return recipe.Claim(text, found, "partly" if alike(values) else verdict(values))


def swept(work: recipe.Work) -> recipe.Table:
    """What each rate comes to on the first seed."""
    rows = []
    for m in METHODS:
        for rate in RATES[m]:
            name = run_name(m, rate, SEEDS[0])
            text = work.json(f"text-{name}")[AFTER]
            rows.append((m, rate, work.curve(name).kl[-1], text["eval/text_kl"], text["eval/perplexity"]))
    columns = ("", "learning rate", "reverse KL, nats/token", "reverse KL on text", "perplexity")
    return recipe.Table(f"Sweep of the learning rate, seed {SEEDS[0]}", columns, tuple(rows))


def trained(work: recipe.Work, names: Sequence[str]) -> float:
    """Tokens that were trained on, mean of the runs."""
    runs = [read_metrics(work.run(name).metrics) for name in names]
    return recipe.mean([sum(row.get("optim/trained_tokens", 0.0) for row in rows) for rows in runs])


def verdict(values: Mapping[str, Sequence[float]]) -> Any:
    """Whether OPD's values are lower on every seed, or in the mean."""
    if max(values["OPD"]) < min(values["SFT"]):
        return "reproduced"
    return "partly" if recipe.mean(values["OPD"]) < recipe.mean(values["SFT"]) else "not reproduced"


def alike(values: Mapping[str, Sequence[float]]) -> str:
    """Says so where the means differ by less than a twentieth, which one seed and a few texts cannot tell apart."""
    near = abs(recipe.mean(values["OPD"]) / recipe.mean(values["SFT"]) - 1) < 0.05
    return ", too close to tell apart" if near else ""


def samples(work: recipe.Work) -> recipe.Table:
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
    return recipe.Table(
        f"Samples at temperature 1, cut at 48 tokens, of seed {SEEDS[0]}: the first {SHOWN} held-out prompts",
        ("prompt", *files), tuple(rows),
    )  # fmt: skip


def evaluated(work: recipe.Work, method: str, step: int) -> str:
    """The completions of an evaluation in training."""
    run = work.run(run_name(method, CHOSEN[method], SEEDS[0]))
    return (run.evals / f"student_step_{step:06d}.jsonl").read_text(encoding="utf-8")


def one(text: str) -> str:
    """A text as a cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def plot(data: Mapping[str, Any]) -> Any:
    """Reverse KL over steps."""
    drawn, axes = recipe.figure()
    recipe.curves_over(axes[0], data, "steps", "kl")
    recipe.mark_axes(axes[0], "optimizer steps", "reverse KL, nats/token")
    return drawn


WHOLE = ("conf={recipe}/full.yaml",)
FULL = (
    recipe.Train("opd", WHOLE),
    recipe.Train("sft", (*WHOLE, "objective=sft", "source=teacher")),
)
PUBLISHED = "no run of just this is known to us"
RECIPE = recipe.Recipe(stages=tuple(stages()), measure=measure, plots={"kl": plot}, full=FULL, published=PUBLISHED)
