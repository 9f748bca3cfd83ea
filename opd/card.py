"""The model card and the closing table, made from what the run itself wrote down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opd.console import Console
from opd.metrics import read_metrics
from opd.plan import model_name
from opd.runs import Run
from opd.subject import Subject

FIGURES = {
    "eval/accuracy": "accuracy", "eval/kl": "reverse KL, nats/token", "eval/length": "tokens", "eval/truncated": "truncated",
}  # fmt: skip


def evaluations(run: Run) -> dict[str, dict[str, Any]]:
    """What `opd eval` found last, by row; else what the training run itself measured first and last."""
    final = {p.stem.removeprefix("final_"): p for p in sorted(run.evals.glob("final_*.json"))}
    if not final:
        steps = sorted(run.evals.glob("student_step_*.json"))
        final = {p.stem.replace("student_", ""): p for p in dict.fromkeys([*steps[:1], *steps[-1:]])}
    order = sorted(
        final,
        key=lambda name: ("base", "student", "teacher").index(name) if name in ("base", "student", "teacher") else 1,
    )
    return {name: json.loads(final[name].read_text()) for name in order}


def phase_seconds(run: Run) -> dict[str, float]:
    """Seconds of each phase over the whole run."""
    total: dict[str, float] = {}
    for row in read_metrics(run.metrics):
        for name, value in row.items():
            if name.startswith("perf/") and name.endswith("_s") and not name.endswith(("tokens_s", "step_s")):
                phase = name.removeprefix("perf/").removesuffix("_s")
                total[phase] = total.get(phase, 0.0) + value
    return total


def summary(run: Run, console: Console) -> None:
    """Show the closing table: the evaluated models side by side, and where the time went."""
    found = evaluations(run)
    if found:
        drawn = next(iter(found.values()))["sampling"]
        console.table(
            {name: e["metrics"] for name, e in found.items()}, title=str(run.path.name),
            temperature=drawn["temperature"], max_tokens=drawn["max_tokens"],
        )  # fmt: skip
    console.durations(phase_seconds(run))


def write(subject: Subject, parity: Mapping[str, Any], dtype: str, adapter: bool) -> str:
    """The model card as Markdown with its YAML header."""
    cfg, run = subject.config, subject.run
    assert run is not None and subject.checkpoint is not None
    env = json.loads((run.path / "env.json").read_text())
    base, teacher = model_name(cfg.student.model), model_name(getattr(cfg.teacher, "model", None))
    rollouts = cfg.data.prompts_per_step * cfg.sampling.n
    head = ["---", "library_name: " + ("peft" if adapter else "transformers"), "pipeline_tag: text-generation"]
    if isinstance(cfg.student.model, str):
        head.append(f"base_model: {cfg.student.model}")
    head += ["tags: [on-policy-distillation, opd]", "---"]
    body = [
        f"# {cfg.name}, step {subject.checkpoint.step}", "",
        "A student trained by on-policy distillation: it wrote the completions, the teacher judged every token.", "",
        "| | |", "| --- | --- |",
        f"| student before | `{base}` |",
        f"| teacher | `{teacher}` |",
        f"| objective | `{cfg.objective}` |",
        f"| data | {', '.join(f'`{name}`' for name in cfg.data.tasks)} |",
        f"| steps | {subject.checkpoint.step} of {cfg.steps}, {rollouts} rollouts each, at most {cfg.sampling.max_tokens} tokens |",
        f"| optimizer | AdamW, learning rate {cfg.optim.lr:g} ({cfg.optim.schedule}), seed {cfg.seed} |",
        f"| weights | {'LoRA adapter' if adapter else 'all'}, {dtype} |",
        f"| versions | {', '.join(f'{k} {v}' for k, v in env['packages'].items())}, Python {env['python']} |", "",
        *_eval_lines(run),
        "## Is this the trained model?", "",
        f"Loaded afresh, its log-probs differ from the learner's by {parity['transformers']:.2g} nats a token on average in "
        f"transformers (allowed {parity['tolerance']:g}) and {parity['engine']:.2g} in {parity['engine_name']} "
        f"(allowed {parity['engine_tolerance']:g}), over {parity['tokens']} tokens.", "",
    ]  # fmt: skip
    return "\n".join([*head, "", *body])


def _eval_lines(run: Run) -> list[str]:
    found = evaluations(run)
    if not found:
        return []
    drawn = next(iter(found.values()))["sampling"]
    lines = ["## Evaluation", "", f"Temperature {drawn['temperature']:g}, at most {drawn['max_tokens']} tokens, {drawn['n']} "
             "sample(s) per prompt; 95% intervals.", "", "| | " + " | ".join(FIGURES.values()) + " |",
             "| --- |" + " --- |" * len(FIGURES)]  # fmt: skip
    for name, e in found.items():
        m = e["metrics"]
        cells = [f"{m[key]:.3f}" if key in m else "" for key in FIGURES]
        if "eval/accuracy" in m:
            cells[0] += f" ({m['eval/accuracy_low']:.3f} to {m['eval/accuracy_high']:.3f})"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]
