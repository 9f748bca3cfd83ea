"""What `--dry-run` says of a run before it starts."""

from __future__ import annotations

from opd.config import Config
from opd.runs import Run
from opd.types import ModelSource


def describe(cfg: Config, run: Run) -> str:
    """The plan in a few lines; loads nothing."""
    rollouts = cfg.data.prompts_per_step * cfg.sampling.n
    evals = f"at steps 0, {cfg.steps}" + (f" and every {cfg.eval.every}" if cfg.eval.every else "")
    lora = f"LoRA rank {cfg.student.lora.rank}" if cfg.student.lora else "all weights"
    lines = [
        f"plan: {cfg.steps} steps of {cfg.data.prompts_per_step} prompts x {cfg.sampling.n} samples = {rollouts} "
        f"rollouts, at most {rollouts * cfg.sampling.max_tokens} tokens a step",
        f"  student    {model_name(cfg.student.model)}, {lora}, {cfg.student.dtype}",
        f"  teacher    {model_name(getattr(cfg.teacher, 'model', None))} ({type(cfg.teacher).__name__})",
        f"  objective  {type(cfg.objective).__name__}, needs {', '.join(sorted(cfg.objective.needs))}",
        f"  engine     {type(cfg.rollout).__name__}, temperature {cfg.sampling.temperature:g}",
        f"  data       {', '.join(cfg.data.tasks)}",
        f"  eval       {cfg.eval.size} prompts x {cfg.eval.n}, {evals}",
        f"  checkpoint every {cfg.checkpoint.every} steps, the newest {cfg.checkpoint.keep} kept",
        f"  run        {run.path}",
    ]
    return "\n".join(lines)


def model_name(model: str | ModelSource | None) -> str:
    """A model as a person would name it."""
    return model if isinstance(model, str) else repr(model)
