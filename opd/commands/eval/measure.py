"""`opd eval`: base, student and teacher on the same held-out prompts, side by side."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opd.called import called
from opd.commands.subject import Subject, checkpoint_weights, in_torch, load_adapter, warn_of_base
from opd.config.compose import draft_of_run
from opd.config.settings import Config
from opd.console import Console
from opd.data.prompts import PromptStream
from opd.devices.shortage import during
from opd.devices.team import Solo, Team, first_rank
from opd.disk import writing
from opd.evaluation.divergence import Reader
from opd.evaluation.evaluate import Evaluation, eval_sampling, evaluate, writer
from opd.models.facts import check_dealt, read_facts
from opd.models.loading import load_config, stop_ids, tokenizer_of
from opd.parts import engine_on, overhang, start_teacher
from opd.protocols import Choosing
from opd.recorder import write_evaluation
from opd.run.directory import RunFolder, refuse_unwritable
from opd.run.results import FINAL, costs, read_evaluation
from opd.seeds import derive
from opd.sources.teacher import as_read
from opd.teaching import Pupil, Scorer
from opd.types import Pretrained, Prompt, Rollout, Sampling, UserError
from opd.writing import Sampler, Writer

BEFORE, TEACHER = "student before", "teacher"
"""Rows of a table."""


def evaluate_models(
    subject: Subject, console: Console, team: Team | None = None, place: str | None = None
) -> dict[str, dict[str, float]]:
    """Measure the subject, what it started from, and the teacher where an engine can sample it; each rank of `team`.

    Figures and completions go into the folder `place`, by default the run's `eval/`.

    Returns:
        Row name -> `eval/...` figures, with what the trained student has cost (`cost/...`); the same are written, with
        every completion, to the run's `eval/` folder (or to `runs/eval-TIME` for a model without a run).
    """
    cfg, team = subject.config, team or Solo()
    tokenizer = tokenizer_of(subject.base)
    data = cfg.data.start(tokenizer, derive(cfg.seed, "data"), train=False)
    asked = held_out(cfg, data, console)  # what is wrong with a task is said before any model is loaded
    stop = stop_ids(subject.base, tokenizer)
    run = subject.run or RunFolder.at(f"{cfg.runs}/{time.strftime('eval-%Y%m%d-%H%M%S')}")
    out = RunFolder.at(place).path if place else run.evals
    first_rank(team, lambda: refuse_unwritable(RunFolder(out), "name another place by --out DIR"))
    first_rank(team, lambda: warn_of_base(subject, console))
    first_rank(team, lambda: warn_of_trained(subject, data, console))
    spent = costs(run, subject.checkpoint.step) if subject.checkpoint else {}
    adapted = None
    if subject.checkpoint and cfg.student.lora:  # a base that has changed is refused before anything is measured
        with console.task("student"):
            adapted = load_adapter(cfg, subject.checkpoint.model)
    with ExitStack() as stack:
        with console.task("teacher"):
            first_rank(team, cfg.teacher.checkpoint)  # one that has to be made yet is made once, where people see it
            for setting, model in {"model": subject.base, "teacher.model": sampled(cfg)}.items():
                if model and cfg.devices.apart:  # before anything is measured
                    check_dealt(setting, model.path, load_config(model), cfg.devices.apart.tensor_parallel)
            if out != run.evals:
                first_rank(team, lambda: refuse_others(out, rows_of(subject)))
            vocabulary = read_facts(subject.base).vocabulary
            pupil = Pupil(tokenizer, vocabulary, subject.base, longest=cfg.longest, team=team, chat=data.chat)
            teacher = start_teacher(cfg.teacher, pupil, data, stack)
        for note in teacher.notes([]):
            console.say(f"teacher: {note}")
        bench = Bench(cfg, data, tokenizer, stop, teacher, console, team)
        results = of_student(subject, bench, spent, adapted)
        del adapted  # before the teacher's engine needs the room
        results |= of_teacher(bench, asked)
    rows = {name: result.metrics for name, result in results.items()}
    show(rows, asked, data, eval_sampling(cfg, stop), console)
    first_rank(team, lambda: write_all(out, list(rows_of(subject)), results))
    return rows


@dataclass(frozen=True)
class Bench:
    """What every model is measured with."""

    cfg: Config
    data: PromptStream
    tokenizer: Any
    stop: tuple[int, ...]
    teacher: Scorer
    console: Console
    team: Team

    def measure(self, name: str, engine: Writer, reader: Reader | None = None) -> Evaluation:
        """Evaluate one model, timed."""
        start = time.perf_counter()
        with self.console.task(f"eval {name}"), during("eval"):
            result = evaluate(engine, self.teacher, self.data, self.tokenizer, self.cfg, self.stop, reader, self.team)
        result.metrics["eval/seconds"] = time.perf_counter() - start
        return result

    def reader(self, model: Pretrained) -> Reader:
        """Opens a model in torch, where something is to be read of it."""
        return functools.partial(in_torch, self.cfg, model, self.team)


def of_student(subject: Subject, bench: Bench, spent: Mapping[str, float], adapted: Any) -> dict[str, Evaluation]:
    """The row of what the subject started from, and of its checkpoint, with what that has cost.

    `adapted`: the learner's model, where its checkpoint is an adapter.
    """
    cfg, checkpoint = bench.cfg, subject.checkpoint
    before, after = BEFORE if checkpoint else subject.label, subject.label
    with engine_of(cfg, subject.base, bench.console, team=bench.team) as engine:
        results = {before: bench.measure(before, engine, bench.reader(subject.base))}
        if checkpoint:
            engine.load_weights(checkpoint_weights(cfg, checkpoint.model, adapted), version=checkpoint.step)
            results[after] = bench.measure(after, engine, bench.reader(subject.trained))
            results[after].metrics.update({k: v for k, v in spent.items() if math.isfinite(v)})
    return results


def of_teacher(bench: Bench, asked: Sequence[Prompt]) -> dict[str, Evaluation]:
    """The teacher's row, where it can have one."""
    cfg, teacher = bench.cfg, bench.teacher
    model = teacher_to_sample(cfg, bench.console)
    if model is None:
        return {}
    longest = cfg.longest + overhang(cfg, teacher, asked)
    with engine_of(cfg, model, bench.console, longest, bench.team) as engine:
        shown = AsTeacher(writer(cfg, engine, bench.data, bench.tokenizer, bench.team), teacher)
        return {TEACHER: bench.measure(TEACHER, shown)}


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


def warn_of_trained(subject: Subject, data: PromptStream, console: Console) -> None:
    """Say so where a run has trained on what is to be evaluated, as data was chosen that it did not hold out."""
    changed = any(re.match(r"[+~]*data\b", text) for text in subject.made.overrides)
    if subject.run is None or not changed:
        return
    with suppress(UserError):  # its own data may have gone meanwhile
        own = draft_of_run(subject.run.config, (), subject.parts, models=False).checked().config.data
        for name, (count, size) in data.trained_too(own.start(None, 0, train=False)).items():
            console.warn(
                f"data.tasks.{name}: {count} of the {size} prompts that are held out now are among those that the run "
                "was trained on, as its own settings of data held out others; figures are not of unseen prompts"
            )


def title(prompts: int, samples: int) -> str:
    """What a table of evaluations is of; `samples` of each prompt, 0 where answers are only compared or predicted."""
    counted = f"{prompts} held-out prompt{'s' if prompts > 1 else ''}"
    return f"{counted}, {samples} sample{'s' if samples > 1 else ''} each" if samples else counted


def teacher_to_sample(cfg: Config, console: Console) -> Pretrained | None:
    """The teacher's checkpoint, or None, with the reason said, where it can have no row."""
    model = sampled(cfg)
    if model is not None:
        return model
    why = (
        "has no checkpoint that an engine could sample"
        if cfg.teacher.checkpoint() is None
        else "writes in tokens of its own"
    )
    console.say(f"no row for the teacher: teacher={called('teacher', cfg.teacher)} {why}")
    return None


def sampled(cfg: Config) -> Pretrained | None:
    """The teacher's checkpoint, where an engine can sample it in the student's tokens."""
    return None if cfg.teacher.provides.spans else cfg.teacher.checkpoint()


def rows_of(subject: Subject) -> dict[str, str]:
    """The file of each row, with the row's name."""
    before = {FINAL[0]: BEFORE} if subject.checkpoint else {}
    return before | {FINAL[1]: subject.label} | ({FINAL[2]: TEACHER} if sampled(subject.config) else {})


def refuse_others(out: Path, rows: Mapping[str, str]) -> None:
    """UserError where a folder holds rows of another evaluation, which would be lost, or taken for some of this one."""
    for file in FINAL:
        figures = out / f"{file}.json"
        if figures.exists() or (out / f"{file}.jsonl").exists():
            name = read_evaluation(figures)["name"] if figures.exists() else "without its figures"
            if name != rows.get(file):
                raise UserError(
                    f"--out={out}: {file} in it is of another evaluation ({name}); name another folder, or move its "
                    f"{', '.join(FINAL)} elsewhere"
                )


def write_all(out: Path, files: Sequence[str], results: Mapping[str, Evaluation]) -> None:
    """Write every row's figures and completions, and nothing of an earlier evaluation stays beside them."""
    # The teacher, the last of the files, may have no row.
    rows = dict(zip(files, results.items(), strict=False))
    for file, (name, result) in rows.items():
        write_evaluation(out, file, name, result)
    with writing(out):
        for old in set(FINAL) - rows.keys():  # of another step, or of another teacher
            (out / f"{old}.json").unlink(missing_ok=True)


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
def engine_of(
    cfg: Config, model: Pretrained, console: Console, max_len: int | None = None, team: Team | None = None
) -> Iterator[Sampler]:
    """A started engine on `model`, closed at the end; `max_len`: if not that of training."""
    with ExitStack() as stack:
        with console.task("engine"):
            engine = engine_on(cfg, stack, console.warn, team or Solo(), model, max_len or cfg.longest, "engine")
        yield engine
