"""New facts cost a model its instruction following: does OPD from the untouched model win it back, and keep them?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from opd import recipe
from opd.evaluation.evaluate import interval

HOMES = ("data.tasks.facts.path={recipe}/facts.jsonl", "data.tasks.facts.eval_path={recipe}/questions.jsonl")
RECOVER: dict[str, tuple[str, ...]] = {
    "OPD": ("conf={recipe}/recover.yaml", "objective.estimator=exact"),
    "OPD, 0.3 replay": ("conf={recipe}/replay.yaml",),
}
"""Stage 2, both over the whole vocabulary."""
TAUGHT, RECOVERED = 48, 24
"""Steps of the two stages."""
SEEDS = (0,)
TASKS = {"facts": "questions about the facts", "instructions": "verifiable instructions"}


def stages() -> tuple[recipe.Stage, ...]:
    """Facts, their export, and from it stage 2 in both ways."""
    found: list[recipe.Stage] = []
    for seed in SEEDS:
        same = (*HOMES, f"seed={seed}")
        found += [
            recipe.Train(f"facts-seed{seed}", ("conf={recipe}/facts.yaml", f"steps={TAUGHT}", *same)),
            recipe.Export(f"taught-seed{seed}", run=f"facts-seed{seed}"),
        ]
        found += [
            recipe.Train(
                run_name(method, seed),
                (*settings, f"steps={RECOVERED}", f"student.model={{work}}/taught-seed{seed}", *same),
                after=(f"taught-seed{seed}",),
            )
            for method, settings in RECOVER.items()
        ]
    return tuple(found)


def run_name(method: str, seed: int) -> str:
    """Where a run of stage 2 is."""
    return f"{'replay' if 'replay' in method else 'recover'}-seed{seed}"


def measure(work: recipe.Work) -> recipe.Result:
    """Accuracy of both tasks at each point of the way."""
    points: dict[str, list[dict[str, list[float]]]] = {
        "start": [scores(work, f"facts-seed{s}", 0) for s in SEEDS],
        "facts by SFT": [scores(work, f"facts-seed{s}", TAUGHT) for s in SEEDS],
    }
    points |= {m: [scores(work, run_name(m, s), RECOVERED) for s in SEEDS] for m in RECOVER}
    value = {name: {t: [recipe.mean(seed[t]) for seed in seeds] for t in TASKS} for name, seeds in points.items()}
    rows = [(name, *(shown(value[name][t], points[name], t) for t in TASKS)) for name in points]
    middle = {name: {t: recipe.mean(of[t]) for t in TASKS} for name, of in value.items()}
    start, taught, alone, replay = middle.values()
    back = (alone["instructions"] - taught["instructions"]) / max(1e-9, start["instructions"] - taught["instructions"])
    counts = {t: len(points["start"][0][t]) for t in TASKS}
    told = ", ".join(f"{counts[t]} {what}" for t, what in TASKS.items())
    return recipe.Result(
        tables=(
            recipe.Table(
                f"Accuracy in percent on {told}, greedy answers; "
                + ("95% intervals over prompts, seed 0" if len(SEEDS) == 1 else f"mean and range of seeds {SEEDS}"),
                ("after", *TASKS.values()), tuple(rows),
            ),
        ),
        claims=(
            recipe.Claim(
                "Training on new facts alone takes instruction following away (published: documents alone, IF-eval "
                "85 to 45).",
                f"{percent(start['instructions'])} to {percent(taught['instructions'])}.",
                "reproduced" if taught["instructions"] < start["instructions"] - 0.1 else "not reproduced",
            ),
            recipe.Claim(
                "OPD from the model as it was before wins it back (published: IF-eval 79 to 83 of 85).",
                f"{percent(taught['instructions'])} to {percent(alone['instructions'])} without replay and "
                f"{percent(replay['instructions'])} with it, of {percent(start['instructions'])}: {back:.0%} of what "
                "was lost, without replay.",
                "reproduced" if back >= 0.6 else "partly" if back >= 0.2 else "not reproduced",
            ),
            recipe.Claim(
                "The facts stay (published: internal QA 36 to 41).",
                f"{percent(taught['facts'])} to {percent(alone['facts'])} without replay, "
                f"{percent(replay['facts'])} with it.",
                kept(taught["facts"], alone["facts"], replay["facts"]),
            ),
        ),
        data={"accuracy": value},
    )  # fmt: skip


def scores(work: recipe.Work, run: str, step: int) -> dict[str, list[float]]:
    """Every answer's score, by task."""
    text = (work.run(run).evals / f"student_step_{step:06d}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return {task: [r["score"] for r in rows if r["id"].startswith(f"{task}/")] for task in TASKS}


def kept(taught: float, alone: float, replay: float) -> Any:
    """Both ways keep four fifths of the facts, or the one with replay does."""
    if min(alone, replay) >= 0.8 * taught:
        return "reproduced"
    return "partly" if replay >= 0.8 * taught else "not reproduced"


def shown(values: Sequence[float], seeds: Sequence[Mapping[str, Sequence[float]]], task: str) -> str:
    """One seed: the value and its interval; several: mean and range."""
    import numpy as np

    low, high = interval(np.array(seeds[0][task]), 1) if len(values) == 1 else (min(values), max(values))
    return f"{percent(recipe.mean(values))} [{percent(low)}, {percent(high)}]"


def percent(share: float) -> str:
    """Without a sign, one digit."""
    return f"{100 * share:.1f}" if math.isfinite(share) else "-"


def plot(data: Mapping[str, Any]) -> Any:
    """Both accuracies at each point, side by side."""
    drawn, (ax,) = recipe.figure(width=5.6)
    names = list(data["accuracy"])
    for k, (task, what) in enumerate(TASKS.items()):
        heights = [100 * recipe.mean(data["accuracy"][n][task]) for n in names]
        places = [i + (k - 0.5) * 0.38 for i in range(len(names))]
        bars = ax.bar(
            places, heights, width=0.36, color=recipe.COLOURS[k], hatch=("", "//")[k], edgecolor="white", label=what
        )
        ax.bar_label(bars, fmt="%.0f", fontsize=8)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("accuracy, %")
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return drawn


FACTS = (
    "data.tasks.documents._target_=opd.tasks.exact_match.ExactMatch", "data.tasks.documents.path={recipe}/facts.jsonl",
    "data.tasks.documents.eval_path={recipe}/questions.jsonl", "data.tasks.documents.completion_column=completion",
    "data.tasks.documents.normalize=words", "data.tasks.documents.within=true",
)  # fmt: skip
"""The facts of this folder in place of documents of one's own; so few of them need a tenth of the steps."""
ASKED = (
    "data=exact_match", "data.tasks.exact_match.path={recipe}/facts.jsonl",
    "data.tasks.exact_match.eval_path={recipe}/questions.jsonl", "data.tasks.exact_match.normalize=words",
    "data.tasks.exact_match.within=true", "eval.n=1", "eval.size=40", "eval.temperature=0", "eval.max_tokens=1024",
)  # fmt: skip
RULES = ("data=instructions", "eval=instructions")
FULL = (
    recipe.Train("documents", ("conf=personalize_qwen_documents", *FACTS, "steps=100")),
    recipe.Export("documents-model", "documents", dtype="bfloat16"),
    recipe.Train(
        "recovered", ("conf=personalize_qwen", "student.model={work}/documents-model"), after=("documents-model",)
    ),
    recipe.Evaluate("rules-documents", ("run={work}/documents", *RULES), after=("documents",)),
    recipe.Evaluate("rules-recovered", ("run={work}/recovered", *RULES), after=("recovered",)),
    recipe.Evaluate("facts-recovered", ("run={work}/recovered", *ASKED), after=("recovered",)),
)
PUBLISHED = (
    "internal QA 18% at the start, 36% after documents and chat, 41% after OPD; IF-eval 85%, 79%, 83% "
    "(Thinking Machines, 2025)"
)
RECIPE = recipe.Recipe(stages=stages(), measure=measure, plots={"accuracy": plot}, full=FULL, published=PUBLISHED)
