"""`opd eval`: base, student and teacher on the same held-out prompts, side by side."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from opd.commands.subject import Subject, checkpoint_weights, in_torch, load_adapter
from opd.config.settings import Config
from opd.console import Console
from opd.data.prompts import PromptStream
from opd.evaluation.choosing import Chooser
from opd.evaluation.divergence import Reader
from opd.evaluation.evaluate import Evaluation, eval_sampling, evaluate
from opd.models.facts import read_facts
from opd.models.loading import stop_ids, tokenizer_of
from opd.parts import overhang, start_teacher
from opd.protocols import Choosing, Sampler, Writer
from opd.recorder import write_evaluation
from opd.run.directory import RunFolder
from opd.run.results import FINAL, costs
from opd.seeds import derive
from opd.sources.teacher import as_read
from opd.teaching import Pupil, Scorer
from opd.types import Pretrained, Prompt, Rollout, Sampling, UserError


def evaluate_models(subject: Subject, console: Console) -> dict[str, dict[str, float]]:
    """Measure the subject, what it started from, and the teacher where an engine can sample it.

    Returns:
        Row name -> `eval/...` figures, with what the trained student has cost (`cost/...`); the same are written, with
        every completion, to the run's `eval/` folder (or to `runs/eval-TIME` for a model without a run).
    """
    cfg = subject.config
    tokenizer = tokenizer_of(subject.base)
    data = cfg.data.start(tokenizer, derive(cfg.seed, "data"), train=False)
    asked = held_out(cfg, data, console)  # what is wrong with a task is said before any model is loaded
    stop = stop_ids(subject.base, tokenizer)
    out = subject.run or RunFolder.at(f"{cfg.runs}/{time.strftime('eval-%Y%m%d-%H%M%S')}")
    results: dict[str, Evaluation] = {}
    spent: dict[str, float] = {}
    if subject.checkpoint and cfg.student.lora:  # a base that has changed is refused before anything is measured
        with console.task("student"):
            load_adapter(cfg, subject.checkpoint.model)
    with ExitStack() as stack:
        with console.task("teacher"):
            pupil = Pupil(tokenizer, read_facts(subject.base).vocabulary, subject.base, longest=cfg.longest)
            teacher = start_teacher(cfg.teacher, pupil, data, stack)
        for note in teacher.notes([]):
            console.say(f"teacher: {note}")
        with engine_of(cfg, subject.base, console) as engine:
            name = "student before" if subject.checkpoint else subject.label
            reader = functools.partial(in_torch, cfg, subject.base)
            results[name] = run_one(name, engine, teacher, data, tokenizer, cfg, stop, console, reader)
            if subject.checkpoint:
                engine.load_weights(checkpoint_weights(cfg, subject.checkpoint.model), version=subject.checkpoint.step)
                name, reader = subject.label, functools.partial(in_torch, cfg, subject.trained)
                results[name] = run_one(name, engine, teacher, data, tokenizer, cfg, stop, console, reader)
                spent = costs(out, subject.checkpoint.step)
                results[name].metrics.update({k: v for k, v in spent.items() if math.isfinite(v)})
        model = teacher_to_sample(cfg, console)
        if model is not None:
            with engine_of(cfg, model, console, cfg.longest + overhang(cfg, teacher, asked)) as engine:
                shown = AsTeacher(Chooser(engine, engine, data.task_of, tokenizer), teacher)
                results["teacher"] = run_one("teacher", shown, teacher, data, tokenizer, cfg, stop, console)
    write_all(out, FINAL if subject.checkpoint else FINAL[1:], results)
    rows = {name: result.metrics for name, result in results.items()}
    show(rows, asked, data, eval_sampling(cfg, stop), console)
    if spent:
        console.costs(spent)
    return rows


def show(
    rows: dict[str, dict[str, float]], asked: Sequence[Prompt], data: PromptStream, drawn: Sampling, console: Console
) -> None:
    """Show the table: what all rows are of is in its title."""
    sampled = any(not isinstance(data.task_of(prompt.example), Choosing) for prompt in asked)
    name = title(len(asked), drawn.n if sampled else 0)
    console.table(rows, title=name, temperature=drawn.temperature, max_tokens=drawn.max_tokens)


def held_out(cfg: Config, data: PromptStream, console: Console) -> list[Prompt]:
    """The prompts to evaluate on, with what their tasks have to tell; UserError where there are none."""
    asked = data.eval_prompts(cfg.eval.size)
    if not asked:
        raise UserError(f"data: {', '.join(sorted(data.names))}: there are no held-out prompts; see eval_fraction")
    for note in data.notes:
        console.say(f"data: {note}")
    return asked


def title(prompts: int, samples: int) -> str:
    """What a table of evaluations is of; `samples` of each prompt, 0 where answers are only compared or predicted."""
    counted = f"{prompts} held-out prompt{'s' if prompts > 1 else ''}"
    return f"{counted}, {samples} sample{'s' if samples > 1 else ''} each" if samples else counted


def teacher_to_sample(cfg: Config, console: Console) -> Pretrained | None:
    """The teacher's checkpoint, or None, with the reason said, where it can have no row."""
    model = cfg.teacher.checkpoint()
    if model is not None and not cfg.teacher.provides.spans:
        return model
    why = "has no checkpoint that an engine could sample" if model is None else "writes in tokens of its own"
    console.say(f"no row for the teacher: {type(cfg.teacher).__name__} {why}")
    return None


def write_all(out: RunFolder, files: Sequence[str], results: Mapping[str, Evaluation]) -> None:
    """Write every row's figures and completions, and nothing of an earlier evaluation stays beside them."""
    for old in FINAL:  # of another step, or of another teacher
        (out.evals / f"{old}.json").unlink(missing_ok=True)
    # The teacher, the last of the files, may have no row.
    for file, (name, result) in zip(files, results.items(), strict=False):
        write_evaluation(out, file, name, result)


@dataclass(frozen=True)
class AsTeacher:
    """The teacher's engine, which is shown every prompt as the teacher reads it."""

    engine: Writer
    teacher: Scorer

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Complete what the teacher reads; the rollouts are of the prompts as given."""
        shown = as_read(self.teacher.read, prompts)
        owners = [p for p in prompts for _ in range(sampling.n)]
        return [replace(r, prompt=p) for r, p in zip(self.engine.sample(shown, sampling), owners, strict=True)]


@contextmanager
def engine_of(cfg: Config, model: Pretrained, console: Console, max_len: int | None = None) -> Iterator[Sampler]:
    """A started engine on `model`, closed at the end; `max_len`: if not that of training."""
    with console.task("engine"):
        engine = cfg.rollout.start(model, max_len=max_len or cfg.longest, seed=derive(cfg.seed, "engine", bits=32))
    try:
        yield engine
    finally:
        engine.close()


def run_one(
    name: str, engine: Writer, teacher: Scorer, data: PromptStream, tokenizer: Any, cfg: Config,
    stop: tuple[int, ...], console: Console, reader: Reader | None = None,
) -> Evaluation:  # fmt: skip
    """Evaluate one model, timed."""
    start = time.perf_counter()
    with console.task(f"eval {name}"):
        result = evaluate(engine, teacher, data, tokenizer, cfg, stop, reader)
    result.metrics["eval/seconds"] = time.perf_counter() - start
    return result
