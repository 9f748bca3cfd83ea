"""A teacher with another tokenizer: how much of the gap do GOLD's spans, its hybrid, and ULD close?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opd import recipe

SAME = (
    "steps=40", "data.prompts_per_step=128", "rollout=hf", "optim.schedule=constant", "optim.warmup_steps=2",
    "eval.every=10", "eval.size=500", "checkpoint.every=40", "log.rollouts_every=0", "log.exact_kl=false",
)  # fmt: skip
UPPER, SPANS, ENDS, HYBRID, ULD = "same tokenizer", "GOLD, spans", "GOLD, spans and ends", "GOLD, hybrid", "ULD"
METHODS: dict[str, tuple[str, ...]] = {
    UPPER: ("conf=quickstart", "objective=reverse_kl"),
    SPANS: ("conf=gold", "objective.method=span"),
    ENDS: ("conf=gold", "objective.method=span", "objective.boundary=true"),
    HYBRID: ("conf=gold", "objective.method=hybrid"),
    ULD: ("conf=gold", "objective.method=uld"),
}
"""The first is the upper line: a teacher of the same size and the same task that reads what the student writes."""
TEACHERS = {UPPER: "quickstart", "another tokenizer": "gold"}
"""Configs of the two teachers."""
RATES = dict.fromkeys(METHODS, ("3e-4", "1e-3", "3e-3")) | {
    ENDS: ("3e-4", "1e-3"),
    HYBRID: ("1e-4", "3e-4", "1e-3", "3e-3"),
    ULD: ("1e-4", "3e-4", "1e-3"),
}
CHOSEN = {UPPER: "1e-3", SPANS: "1e-3", ENDS: "1e-3", HYBRID: "1e-4", ULD: "1e-4"}
"""Of each sweep on seed 0, by the accuracy after the last step; the other seeds are run with these."""
SEEDS = (0, 1, 2)


def stage_name(method: str, rate: str, seed: int) -> str:
    """Where a run is."""
    return f"{method.lower().replace(', ', '-').replace(' ', '-')}-lr{rate}-seed{seed}"


def train(method: str, rate: str, seed: int) -> recipe.Train:
    """One run."""
    return recipe.Train(stage_name(method, rate, seed), (*METHODS[method], *SAME, f"optim.lr={rate}", f"seed={seed}"))


def stages() -> Iterator[recipe.Stage]:
    """Every rate on the first seed, then the chosen ones on the others, and what they are compared with."""
    yield from (train(m, rate, SEEDS[0]) for m in METHODS for rate in RATES[m])
    yield from (train(m, CHOSEN[m], seed) for m in METHODS for seed in SEEDS[1:])
    yield recipe.Call("teachers", teachers)


def teachers(work: recipe.Work) -> Mapping[str, Any]:
    """Accuracy of both teachers on the prompts of the students' evaluations, and the tokens that begin with `=`."""
    from opd.commands.eval.measure import evaluate_models
    from opd.commands.finding import find_subject
    from opd.config.compose import load
    from opd.console import make_console
    from opd.models.loading import tokenizer_of

    found: dict[str, Any] = {}
    for name, conf in TEACHERS.items():
        model = load(conf).config.teacher.checkpoint()
        assert model is not None
        given = ("rollout=hf", "eval.size=500", f"runs={work.path / 'evaluations'}")
        subjects = [find_subject({"conf": "grpo", "model": model.path}, (*given, f"seed={seed}")) for seed in SEEDS]
        rows = [evaluate_models(s, make_console(quiet=True)) for s in subjects]
        found[name] = [row["eval/accuracy"] for (row, *_) in (list(r.values()) for r in rows)]
        found[f"{name}: tokens"] = sorted(t for t in tokenizer_of(model).get_vocab() if t.startswith("="))
    return found


def measure(work: recipe.Work) -> recipe.Result:
    """The share of the gap that each method closes, and what becomes of the sums in which the tokenizers differ."""
    known = work.json("teachers")
    curves = {m: [work.curve(stage_name(m, CHOSEN[m], s)) for s in SEEDS] for m in METHODS}
    goal = {m: known[UPPER if m == UPPER else "another tokenizer"] for m in METHODS}
    shares = {m: [share(c, c.accuracy[-1], t) for c, t in zip(curves[m], goal[m], strict=True)] for m in METHODS}
    best = {m: [share(c, c.best, t) for c, t in zip(curves[m], goal[m], strict=True)] for m in METHODS}
    rows = tuple(
        (m, CHOSEN[m], span([c.accuracy[-1] * 100 for c in curves[m]]), span([v * 100 for v in shares[m]]),
         span([v * 100 for v in best[m]]), span([c.kl[-1] for c in curves[m]], 3))
        for m in METHODS
    )  # fmt: skip
    sweep = tuple((m, ", ".join(f"{r}: {last(work, m, r):.1%}" for r in RATES[m])) for m in METHODS)
    before = recipe.mean([c.accuracy[0] for c in curves[SPANS]])
    merged = "".join(sorted({t[1] for t in known["another tokenizer: tokens"] if len(t) > 1}))
    return recipe.Result(
        tables=(
            recipe.Table(
                f"500 held-out prompts after 40 steps of 128 samples, mean and range of seeds {SEEDS}. The student "
                f"begins at {before:.1%}; the teacher with its tokenizer has {recipe.mean(known[UPPER]):.1%}, the one "
                f"with another {recipe.mean(known['another tokenizer']):.1%}. Share: (after - before) / "
                "(teacher - before)",
                ("method", "lr", "accuracy %", "share of the gap %", "at best on the way %", "reverse KL, nats/token"),
                rows,
            ),
            recipe.Table(f"Accuracy after 40 steps by learning rate, seed {SEEDS[0]}", ("method", ""), sweep),
            results_table(work, merged),
        ),
        claims=(claim(shares), mended(shares)),
        data={
            "curves": {m: [c.plain() for c in runs] for m, runs in curves.items()}, "shares": shares,
            "teacher": recipe.mean(known["another tokenizer"]),
        },
    )  # fmt: skip


def share(curve: recipe.Curve, accuracy: float, teacher: float) -> float:
    """Of the gap between student before and teacher."""
    return (accuracy - curve.accuracy[0]) / (teacher - curve.accuracy[0])


def last(work: recipe.Work, method: str, rate: str) -> float:
    """Accuracy after the last step of a run of the sweep."""
    return work.curve(stage_name(method, rate, SEEDS[0])).accuracy[-1]


def claim(shares: Mapping[str, Sequence[float]]) -> recipe.Claim:
    """What was published of GOLD and ULD."""
    spans, uld, hybrid = (recipe.mean(shares[m]) for m in (SPANS, ULD, HYBRID))
    return recipe.Claim(
        "GOLD recovers most of the gap where ULD recovers a tenth.",
        f"span advantages recover {spans:.0%}, ULD {uld:.0%}, and the hybrid, which is GOLD's own loss, {hybrid:.0%}.",
        "reproduced" if hybrid >= 0.6 and uld <= 0.25 else "partly" if spans >= 0.6 > uld else "not reproduced",
    )


def mended(shares: Mapping[str, Sequence[float]]) -> recipe.Claim:
    """What is not published: answering for the ends of spans."""
    spans, ends, upper = (recipe.mean(shares[m]) for m in (SPANS, ENDS, UPPER))
    above = [b > a for a, b in zip(shares[SPANS], shares[ENDS], strict=True)]
    return recipe.Claim(
        "(Not a published one.) Spans are worth more if a token also answers for where the span before it ends.",
        f"{spans:.0%} becomes {ends:.0%}, with a teacher of the student's tokenizer it is {upper:.0%}; better on "
        f"{sum(above)} of {len(above)} seeds.",
        "reproduced" if all(above) else "partly" if ends > spans else "not reproduced",
    )


def results_table(work: recipe.Work, merged: str) -> recipe.Table:
    """Sums by whether the teacher has a token for `=` with the result's first digit, and what was written instead."""
    shown = [("student before", stage_name(UPPER, CHOSEN[UPPER], SEEDS[0]), 0)]
    shown += [(f"{m}, lr {CHOSEN[m]}", stage_name(m, CHOSEN[m], SEEDS[0]), 40) for m in METHODS]
    shown += [(f"{m}, lr 1e-3", stage_name(m, "1e-3", SEEDS[0]), 40) for m in (HYBRID, ULD)]
    rows = []
    for name, stage, step in shown:
        lines = (work.run(stage).evals / f"student_step_{step:06d}.jsonl").read_text(encoding="utf-8").splitlines()
        wrote = list(sums(lines))
        one = [(right, got) for right, got in wrote if right[0] in merged]
        two = [(right, got) for right, got in wrote if right[0] not in merged]
        good = (f"{recipe.mean([right == got for right, got in part]):.1%}" for part in (one, two))
        joined = f"{recipe.mean([got[0] in merged for _, got in wrote]):.1%}"
        rows.append((name, *good, joined, f"{recipe.mean([copied(json.loads(line)) for line in lines]):.1%}"))
    return recipe.Table(
        f"Single sums that are right, seed {SEEDS[0]}: those whose result begins with {', '.join(merged)}, which the "
        "other teacher reads in one token with the `=`; the others; and how many of the written results begin "
        "with one of these digits; and completions that work out the operations of the problem and no others",
        ("method", "one token", "two tokens", "written in one token", "own operations"),
        tuple(rows),
    )


def copied(sample: Mapping[str, Any]) -> bool:
    """Whether a completion has the operations of its problem, in order."""
    said = [re.match(r"\d+([+-]\d)=", part) for part in sample["completion"].split(";")]
    return re.findall(r"[+-]\d", sample["prompt"]) == [found[1] if found else None for found in said]


def sums(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The right result and the written one of every sum in the completions of an evaluation; negative ones left out."""
    for line in lines:
        for a, op, b, got in re.findall(r"(\d+)([+-])(\d+)=(\d+)", json.loads(line)["completion"]):
            right = int(a) + int(b) if op == "+" else int(a) - int(b)
            if right >= 0:
                yield str(right), got


def span(values: Sequence[float], digits: int = 1) -> str:
    """Mean and range."""
    return f"{recipe.mean(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def plot(data: Mapping[str, Any]) -> Any:
    """Accuracy over the steps, and the share of the gap at the end, a mark for each seed."""
    drawn, (left, right) = recipe.figure(2, width=4.4)
    recipe.curves_over(left, data["curves"], "steps")
    left.axhline(data["teacher"], color="0.4", linewidth=0.8, linestyle=":")
    recipe.mark_axes(left, "optimizer steps", "accuracy")
    names = list(data["shares"])
    for number, (name, values) in enumerate(data["shares"].items()):
        mark = recipe.style(number) | {"linestyle": "none", "markersize": 6}
        right.plot(values, [len(names) - number] * len(values), **mark)
        right.annotate(name, (max(values), len(names) - number), (6, 6), textcoords="offset points", fontsize=8)
    right.axvline(0, color="0.4", linewidth=0.8)
    right.set_yticks([])
    right.set_ylim(0.5, len(names) + 0.7)
    right.set_xlim(right=1.35)
    right.set_xlabel("share of the gap to the teacher, each seed")
    return drawn


FULL = tuple(
    recipe.Train(f"countdown-{m}", ("conf=gold_countdown", f"objective.method={m}")) for m in ("hybrid", "uld", "span")
)

RECIPE = recipe.Recipe(stages=tuple(stages()), measure=measure, plots={"recovered": plot}, full=FULL)
