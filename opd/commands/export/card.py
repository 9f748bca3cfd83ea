"""The model card and the closing table, made from what the run itself wrote down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from opd.commands.export.order import Order
from opd.commands.subject import Subject
from opd.commands.train.plan import model_name, teacher_name
from opd.config.compose import draft_of_run
from opd.config.settings import Config
from opd.console import Console
from opd.console.tables import by_task, cost_grid
from opd.hints import printable
from opd.run import health
from opd.run.directory import RunFolder, read_environment
from opd.run.results import Setting, costs, evaluations, setting_at, unlike

FIGURES = {
    "eval/accuracy": "accuracy",
    "eval/kl": "reverse KL, nats/token",
    "eval/length": "tokens a completion",
    "eval/truncated": "truncated",
}


def summary(run: RunFolder, step: int, console: Console) -> None:
    """Show what was measured of the checkpoint of a step, and what it is compared with, side by side."""
    found = evaluations(run, step)
    if found:
        drawn = next(iter(found.values()))["sampling"]
        console.table(
            {name: e["metrics"] for name, e in found.items()}, title=str(run.path.name),
            temperature=drawn["temperature"], max_tokens=drawn["max_tokens"],
        )  # fmt: skip


def write(subject: Subject, parity: Mapping[str, Any], order: Order, use: Mapping[str, str]) -> str:
    """The model card as Markdown with its YAML header; `use`: a line for each program that can use the model."""
    run = subject.run
    assert run is not None and subject.checkpoint is not None
    cfg = draft_of_run(run.config, (), subject.parts, models=False).checked().config  # not what was typed since
    rows = _facts(subject, cfg, order)
    return "\n".join(
        [
            "---",
            header(cfg.student.model, order.adapter, order.format) + "---",
            "",
            f"# {_word(cfg.name)}, step {subject.checkpoint.step}",
            "",
            f"Trained with opd: completions from `{_word(cfg.source)}`, learned from by the objective below.",
            "",
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {_word(value)} |" for name, value in rows.items()),
            "",
            *_use_lines(use),
            *_eval_lines(run, subject.checkpoint.step),
            *_health_lines(run),
            *_cost_lines(costs(run, subject.checkpoint.step)),
            "## Is this the trained model?",
            "",
            _parity_line(parity, order),
            "",
        ]
    )


def _use_lines(use: Mapping[str, str]) -> list[str]:
    said = (line for program, code in use.items() for line in (f"{program}:", "", "```sh", printable(code), "```", ""))
    return ["## Use it", "", *said]


def _parity_line(parity: Mapping[str, Any], order: Order) -> str:
    """How far the export is from what was trained, and what of that its packing explains."""
    engine = "" if parity["engine"] is None else (
        f" and by {parity['engine']:.2g} in {parity['engine_name']} (allowed {parity['engine_tolerance']:g})"
    )  # fmt: skip
    packed = f" Packing into {order.quantize} is what most of it comes from." if order.quantize else ""
    return (
        f"Loaded afresh, its log-probs differ from the learner's by {parity['transformers']:.2g} nats a token in "
        f"transformers (allowed {parity['tolerance']:g}){engine}, on average over {parity['tokens']} tokens.{packed}"
    )


def header(base: Any, adapter: bool, form: str = "safetensors") -> str:
    """The card's YAML; `base` is the model that was trained, named where it has a name."""
    said: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    said |= {"base_model": base} if isinstance(base, str) else {}
    said |= {"tags": ["on-policy-distillation", "opd", *(["gguf"] if form == "gguf" else [])]}
    return str(yaml.safe_dump(said, sort_keys=False, width=1000))


def _facts(subject: Subject, cfg: Config, order: Order) -> dict[str, str]:
    run, saved = subject.run, subject.checkpoint
    assert run is not None and saved is not None
    env = read_environment(run)
    rollouts = cfg.data.prompts_per_step * cfg.sampling.n
    return {
        "student before": f"`{model_name(cfg.student.model)}`",
        "teacher": teacher_name(cfg.teacher),
        "objective": f"`{cfg.objective}`",
        "data": ", ".join(f"`{name}`" for name in cfg.data.tasks),
        "prompts": _shown(cfg.data.template, cfg.data.template_kwargs, cfg.data.system),
        "steps": f"{saved.step} of {cfg.steps}, {rollouts} rollouts a step of at most {cfg.sampling.max_tokens} tokens",
        "optimizer": f"AdamW, learning rate {cfg.optim.lr:g} ({cfg.optim.schedule}), seed {cfg.seed}",
        "weights": f"{'LoRA adapter' if order.adapter else 'all'}, {order.kind}",
        "versions": ", ".join(f"{k} {v}" for k, v in env.get("packages", {}).items())
        + f", Python {env.get('python', 'not known')}",
    }


def _shown(template: str, template_kwargs: Mapping[str, Any], system: str | None = None) -> str:
    """How prompts were rendered, for who is to write others."""
    said = ", ".join(f"`{name}={value}`" for name, value in template_kwargs.items())
    first = f", behind the system turn {system!r} where they have none" if system else ""
    return f"template `{template}`" + (f" with {said}" if said else "") + first


def _eval_lines(run: RunFolder, step: int) -> list[str]:
    found = evaluations(run, step)
    if not found:
        return []
    measured = next(iter(found.values()))
    drawn, made = measured["sampling"], Setting.of(measured)
    asked = f"{drawn['n']} a prompt" + (f", {made.count} prompts" if made.prompts else "")
    others = "prompts" in unlike(setting_at(run, 0), made)
    lines = [
        "## Evaluation",
        "",
        f"Temperature {drawn['temperature']:g}, at most {drawn['max_tokens']} tokens, {asked}; 95% intervals."
        + (" These are not the prompts that the run was evaluated on in training." if others else ""),
        "",
        "| | " + " | ".join(FIGURES.values()) + " |",
        "| --- |" + " --- |" * len(FIGURES),
    ]
    for name, e in found.items():
        lines.append(_eval_line(name, e["metrics"]))
        lines += [_eval_line(f"· {task}", own) for task, own in by_task(e["metrics"]).items()]
    return [*lines, ""]


def _eval_line(name: str, m: Mapping[str, float]) -> str:
    cells = [f"{m[key]:.3f}" if key in m else "" for key in FIGURES]
    if "eval/accuracy" in m:
        cells[0] += f" ({m['eval/accuracy_low']:.3f} to {m['eval/accuracy_high']:.3f})"
    return f"| {_word(name)} | " + " | ".join(cells) + " |"


def _word(value: object) -> str:
    """A name or a setting as one cell, whatever it holds: it says nothing but itself."""
    return printable(" ".join(str(value).split())).replace("|", "\\|").replace("<", "&lt;")


def _health_lines(run: RunFolder) -> list[str]:
    """What the run's figures say that is not as it should be."""
    found = health.read(run.health)
    return ["## What the figures of training say", "", *(f"- {_word(str(v))}" for v in found), ""] if found else []


def _cost_lines(totals: Mapping[str, float]) -> list[str]:
    if not totals:
        return []
    grid = cost_grid(totals)
    return [
        "## Cost",
        "",
        "Counted while it was trained. Tokens and FLOPs are those of training alone; the seconds of evaluations have a "
        "row. FLOPs are those of matrix products, from the architectures; `-` where one is not known.",
        "",
        "| " + " | ".join(grid.header) + " |",
        "| --- |" + " ---: |" * (len(grid.header) - 1),
        *(f"| {' | '.join(row)} |" for row in grid.rows),
        "",
    ]
