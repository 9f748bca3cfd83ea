"""Two specialists, one student: does it learn from both what neither of them, SFT or averaged weights can give?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd import recipe

SAME = (
    "steps=30", "data.prompts_per_step=128", "rollout=hf", "optim.schedule=constant", "optim.warmup_steps=2",
    "eval.every=0", "eval.size=100", "checkpoint.every=30", "log.rollouts_every=0", "log.exact_kl=false",
)  # fmt: skip
OPD = ("conf=multi_teacher", "objective.estimator=exact")
METHODS: dict[str, tuple[str, ...]] = {
    "both teachers": OPD,
    "short teacher": (*OPD, "data.weights={short: 1, long: 0}"),
    "long teacher": (*OPD, "data.weights={short: 0, long: 1}"),
    "joint SFT": ("conf={recipe}/joint_sft.yaml",),
}
"""All see 128 prompts a step: two tasks' or one's."""
ALONE = ("short teacher", "long teacher")
AVERAGE = "averaged weights"
SHOWN = ("both teachers", *ALONE, "joint SFT", AVERAGE)
MODELS = {"student": "student before", "short": "teacher of short sums", "long": "teacher of long sums"}
RATE = "2e-3"
"""One for all, not swept."""
SEEDS = (0, 1, 2)
TASKS = ("short", "long")
PROMPTS = 500
"""Held-out ones of each task, the same for all models."""


def stage_name(method: str, seed: int) -> str:
    """Where a run is."""
    return f"{method.lower().replace(' ', '-')}-lr{RATE}-seed{seed}"


def train(method: str, seed: int) -> recipe.Train:
    """One run."""
    settings = (*METHODS[method], *SAME, f"optim.lr={RATE}", f"seed={seed}")
    return recipe.Train(stage_name(method, seed), settings, after=("specialists",))


def specialists(work: recipe.Work) -> Mapping[str, Any]:
    """Make the student and both teachers, each of which has seen its own task alone."""
    from opd.config.compose import load

    config = load("multi_teacher").config
    return {"student": config.student.pretrained.path} | {
        name: str(teacher.checkpoint()) for name, teacher in config.teacher.used.items()
    }


def model_of(work: recipe.Work, method: str, seed: int) -> Path:
    """The model that a run has ended with."""
    from opd.run.checkpoint import latest

    newest, _ = latest(work.run(stage_name(method, seed)).checkpoints)
    assert newest is not None, "the stage has ended"
    return newest.model


def averages(work: recipe.Work) -> Mapping[str, Any]:
    """Average the weights of the two students that have learned from one teacher each, for each seed."""
    import shutil

    from safetensors.torch import load_file, save_file

    for seed in SEEDS:
        parts = [model_of(work, m, seed) for m in ALONE]
        weights = [load_file(p / "model.safetensors") for p in parts]
        out = work.path / f"averaged-seed{seed}"
        shutil.copytree(parts[0], out, dirs_exist_ok=True)
        averaged = {name: (weights[0][name] + weights[1][name]) / 2 for name in weights[0]}
        save_file(averaged, out / "model.safetensors", metadata={"format": "pt"})
    return {"seeds": SEEDS}


def accuracies(work: recipe.Work) -> Mapping[str, Any]:
    """Accuracy of every model on both tasks, on the same held-out prompts."""
    models = work.json("specialists")
    found = {name: [measured(path, seed) for seed in SEEDS] for name, path in models.items()}
    for m in METHODS:
        found[m] = [measured(model_of(work, m, seed), seed) for seed in SEEDS]
    found[AVERAGE] = [measured(work.path / f"averaged-seed{seed}", seed) for seed in SEEDS]
    return found


def measured(model: str | Path, seed: int) -> dict[str, float]:
    """Accuracy by task of the model in a folder."""
    from opd.commands.eval.measure import engine_of
    from opd.config.compose import load
    from opd.console import make_console
    from opd.evaluation.evaluate import evaluate
    from opd.models.loading import stop_ids, tokenizer_of
    from opd.types import Pretrained

    given = ("rollout=hf", f"eval.size={PROMPTS * len(TASKS)}", f"seed={seed}")
    config, made = load("multi_teacher", given).config, Pretrained(str(model))
    tokenizer = tokenizer_of(made)
    data = config.data.start(tokenizer, 0, train=False)
    with engine_of(config, made, make_console(quiet=True)) as engine:
        result = evaluate(engine, None, data, tokenizer, config, stop_ids(made, tokenizer))
    return {t: recipe.mean([s["score"] for s in result.samples if s["id"].startswith(f"{t}/")]) for t in TASKS}


def stages() -> tuple[recipe.Stage, ...]:
    """The models; the runs, seed by seed; the averages; what all of them can do."""
    runs = [train(m, seed) for seed in SEEDS for m in METHODS]
    names = tuple(s.name for s in runs)
    return (
        recipe.Call("specialists", specialists), *runs, recipe.Call("averages", averages, after=names),
        recipe.Call("accuracies", accuracies, after=(*names, "averages")),
    )  # fmt: skip


def measure(work: recipe.Work) -> recipe.Result:
    """What each method makes of both tasks, and how much of each teacher's lead the student has got."""
    found = {name: [Both(**one) for one in seeds] for name, seeds in work.json("accuracies").items()}
    rows = [(name, *cells(found, key)) for key, name in MODELS.items()] + [(m, *cells(found, m)) for m in SHOWN]
    return recipe.Result(
        tables=(
            recipe.Table(
                f"Accuracy on {PROMPTS} held-out prompts of each task after 30 steps of 128 samples, mean and range of "
                f"seeds {SEEDS}; got: (after - before) / (teacher - before), with the task's own teacher",
                ("", "short %", "long %", "both %", "got of short %", "got of long %"),
                tuple(rows),
            ),
        ),
        claims=(inherits(found), beats(found, ("joint SFT", AVERAGE), PUBLISHED, UNSWEPT), beats(found, ALONE, OWN)),
        data={name: [[one.short, one.long] for one in found[name]] for name in (*MODELS, *SHOWN)},
    )


@dataclass(frozen=True)
class Both:
    """Accuracies on the two tasks."""

    short: float
    long: float

    @property
    def both(self) -> float:
        """Their mean."""
        return (self.short + self.long) / 2


Found = Mapping[str, Sequence[Both]]


def got(found: Found, method: str, task: str) -> list[float]:
    """How much of the lead of a task's teacher, by seed."""
    return [
        (getattr(after, task) - getattr(before, task)) / (getattr(teacher, task) - getattr(before, task))
        for after, before, teacher in zip(found[method], found["student"], found[task], strict=True)
    ]


def cells(found: Found, name: str) -> tuple[str, ...]:
    """A row's figures."""
    accuracies = [span([getattr(one, what) for one in found[name]]) for what in (*TASKS, "both")]
    return (*accuracies, *(("", "") if name in MODELS else (span(got(found, name, task)) for task in TASKS)))


def inherits(found: Found) -> recipe.Claim:
    """The published claim of what one student keeps of several teachers."""
    shares = {task: recipe.mean(got(found, "both teachers", task)) for task in TASKS}
    least = min(shares.values())
    return recipe.Claim(
        "One student inherits nearly all of what each teacher can (MOPD, arXiv 2606.30406).",
        f"{shares['short']:.0%} of the short teacher's lead over the student at its start, and {shares['long']:.0%} of "
        "the long one's.",
        "reproduced" if least >= 0.9 else "partly" if least >= 0.6 else "not reproduced",
    )


PUBLISHED = "That is more than fine-tuning on what the teachers write, and than averaged weights (the same)."
UNSWEPT = " All have one learning rate, which nobody has sought out for fine-tuning."
OWN = "It is more than either teacher can give alone."


def beats(found: Found, others: Sequence[str], text: str, caveat: str = "") -> recipe.Claim:
    """Whether two teachers are above others on every seed; with a caveat that is only a part of what was claimed."""
    ours = [one.both for one in found["both teachers"]]
    above = {m: [(a - b.both) * 100 for a, b in zip(ours, found[m], strict=True)] for m in others}
    wins = [min(points) > 0 for points in above.values()]
    said = ", ".join(f"{recipe.mean(p):+.1f} points over {m} [{min(p):+.1f}, {max(p):+.1f}]" for m, p in above.items())
    verdict = "not reproduced" if not any(wins) else "partly" if caveat or not all(wins) else "reproduced"
    return recipe.Claim(text, f"{said}.{caveat}", verdict)


def span(values: Sequence[float]) -> str:
    """Mean and range in percent."""
    return f"{recipe.mean(values) * 100:.1f} [{min(values) * 100:.1f}, {max(values) * 100:.1f}]"


def plot(data: Mapping[str, Any]) -> Any:
    """Accuracy on the one task over that on the other, a mark for each seed."""
    drawn, (ax,) = recipe.figure(1, width=5.6, height=4.2)
    names = {**MODELS, **{m: m for m in SHOWN}}
    for number, (key, name) in enumerate(names.items()):
        look = recipe.style(number) | {"linestyle": "none", "markersize": 7, "alpha": 0.8}
        if number >= len(recipe.COLOURS):
            look |= {"markerfacecolor": "none"}
        ax.plot(*zip(*data[key], strict=True), label=name, **look)
    recipe.mark_axes(ax, "accuracy on short sums", "accuracy on long sums")
    return drawn


RECIPE = recipe.Recipe(
    stages=stages(),
    measure=measure,
    plots={"both_tasks": plot},
    full=(recipe.Train("math_qwen_teachers", ("conf=math_qwen_teachers",)),),
)
