"""Data without a model: files and columns, rows, prompts that are too long, completions that are given, verifiers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from opd.config.settings import MOST, Config
from opd.data.given import look_through
from opd.data.prompts import Data, PromptStream
from opd.evaluation.held_out import too_few, trained_on
from opd.judges import no_verifier
from opd.models.loading import tokenizer_of
from opd.parts import Texts, sampled, whole
from opd.seeds import derive
from opd.sources.by_task import ByTask
from opd.sources.curriculum import Curriculum
from opd.sources.dataset import DatasetSource
from opd.sources.filtered import Filtered
from opd.sources.mixed import Mixed
from opd.sources.multi_turn import MultiTurn
from opd.sources.parts import parts_of, saying
from opd.sources.student import StudentSource
from opd.survey.found import Found
from opd.survey.models import Reader
from opd.survey.named import teachers_of
from opd.tasks.files import away
from opd.teachers.own import SelfTeacher
from opd.teachers.reading import Reading
from opd.teachers.routed import RoutedTeacher
from opd.teachers.several import RoutedScorer
from opd.types import Example, Rollout, UserError
from opd.writing import Desk, Giving

PLAIN = (DatasetSource, StudentSource, ByTask, Mixed, Filtered, Curriculum)
"""Sources that load nothing when they start."""
SHOWN = 40
"""Characters of a text that are shown of it."""


def look_at_data(cfg: Config, reach: bool, reader: Reader | None, found: Found) -> None:
    """Each task by itself where there is a mistake, or where some are not here; else all as a run has them."""
    data, far = cfg.data, dict[str, str]()
    if not reach:
        far = {name: where for name, task in data.tasks.items() if (where := away(task))}
        found.unseen += [f"data.tasks.{name}={where}: it is not on this machine, and no hub was asked"
                         for name, where in far.items()]  # fmt: skip
    before = len(found.mistakes)
    if not far:
        with found.trying():
            stream = opened(cfg, data, reader, found)
            found.evaluated = stream.evaluated(cfg.eval.size)
            found.warnings += [*too_few(cfg, found.evaluated), *trained_on(stream, cfg.eval.size), *stream.misread()]
            look_at_rows(cfg, reader, stream, found)
            return
    if len(data.tasks) == 1:
        return
    first = found.mistakes[before:]
    del found.mistakes[before:]  # it is said again, by its task, with those of the others
    for name in (name for name in data.tasks if name not in far):
        trained = data.weights is None or data.weights.get(name, 0) > 0
        with found.trying():
            alone = replace(data, tasks={name: data.tasks[name]}, weights=None, evaluated=())
            opened(cfg, alone, reader, found, trained)
    if not found.mistakes[before:]:
        found.mistakes += first


def opened(cfg: Config, data: Data, reader: Reader | None, found: Found, train: bool = True) -> PromptStream:
    """The prompts of some tasks, counted; without a tokenizer they are read, and none is too long. Raises UserError."""
    seed = derive(cfg.seed, "data")
    stream = data.start(reader.tokenizer if reader else None, seed, train=train and reader is not None)
    if reader is None:
        rows = stream.untokenized("train") if train else {}
        stream.untokenized("eval")
    else:
        rows = stream.rows if train else {}
        found.dropped |= stream.dropped if train else {}
        if train:
            stream.take(0)  # of procedural tasks only those that are drawn are met
        stream.eval_prompts(len({*data.tasks}))
    found.rows |= rows
    found.notes += [note for note in stream.notes if note not in found.notes]
    return stream


def look_at_rows(cfg: Config, reader: Reader | None, stream: PromptStream, found: Found) -> None:
    """What a run would say of single rows once all models are loaded."""
    if reader is None:
        return
    losses = None
    with found.trying():
        check_redraws(cfg, stream)
    with found.trying():
        check_examples(cfg, stream)
    with found.trying():
        losses = given(cfg, reader, stream)
    if not found.mistakes:
        look_at_shown(cfg, reader, stream, found)
    found.texts = Texts(reader.tokenizer, reader.stop, stream, losses)
    found.notes += [note for note in stream.notes if note not in found.notes]


def look_at_shown(cfg: Config, reader: Reader, stream: PromptStream, found: Found) -> None:
    """Write some prompts out as each teacher is shown them, by its own tokenizer and template."""
    prompts = [*stream.take(0), *stream.eval_prompts(len(stream.evaluated(0)))]
    for setting, teacher in teachers_of(cfg):
        own = isinstance(teacher, SelfTeacher)
        model = found.there.get(f"{setting}.model")
        if not isinstance(teacher, Reading) or not (own or model):
            continue
        with found.trying():
            try:
                teacher.read(reader.tokenizer if model is None else tokenizer_of(model), prompts)
            except UserError as error:
                known = str(error).startswith("teacher.")
                which = "" if known else f"{setting} (by its prompt, template, template_kwargs and system): "
                raise UserError(f"{which}{error}") from error


def check_redraws(cfg: Config, stream: PromptStream) -> None:
    """Raise UserError where other prompts are to be taken of a task that has none."""
    for name, count in stream.rows.items():
        own = cfg.source.tasks.get(name, cfg.source.others) if isinstance(cfg.source, ByTask) else cfg.source
        if count == 1 and (source := saying(own, "redraws")):
            raise UserError(
                f"source={source}: data.tasks.{name} has one prompt, and no other to take in its place; allowed is "
                "source.redraws=0"
            )


def check_examples(cfg: Config, stream: PromptStream) -> None:
    """Raise UserError for the first row without a verifier, a teacher, or what the teacher is to be shown of it.

    Conversations are scored by what answers them.
    """
    teacher, judged = cfg.teacher, set[str]()
    sources = list(parts_of(cfg.source))
    wanted = cfg.objective.needs.rewards or saying(cfg.source, "verifies")
    rewarded = wanted and not any(isinstance(part, MultiTurn) for part in sources)
    routes = None
    if isinstance(teacher, RoutedTeacher) and teacher.routes is not None:
        routes = RoutedScorer({}, 0, teacher.by, teacher.routes, teacher.default)
    shown = teacher if isinstance(teacher, Reading) and teacher.context is not None else None
    if not (rewarded or routes or shown):
        return
    for example in stream.examples():
        if rewarded and example.task not in judged:
            judged.add(example.task)
            if stream.task_of(example).verify(example, "") is None:
                raise UserError(no_verifier(example.task))
        if routes is not None:
            routes.route(example)
        if shown is not None:
            shown.messages(example)


def given(cfg: Config, reader: Reader, stream: PromptStream) -> list[str] | None:
    """Read every completion that the data gives; None where a source has to be started for it that loads models.

    Raises:
        UserError: one cannot be trained on; names its row.
    """
    if not all(isinstance(part, PLAIN) for part in parts_of(cfg.source)):
        return None
    nobody: Any = None  # no engine is asked for what is given
    desk = Desk(
        nobody, lambda: nobody, lambda prompts: [p.tokens for p in prompts], reader.tokenizer, stream.task_of,
        stream.names, stream.rendering,
    )  # fmt: skip
    writer = cfg.source.start(desk)
    if not isinstance(writer, Giving):
        return []
    drawn = whole(cfg, sampled(cfg, reader.stop, 0))
    uncut = replace(drawn, max_tokens=MOST)
    firsts = dict[str, Example]()

    def read() -> Iterator[Rollout]:
        for rollout in writer.given(stream.prompts(), uncut):
            firsts.setdefault(rollout.prompt.example.task, rollout.prompt.example)
            yield rollout

    losses = look_through(read(), reader.tokenizer, drawn, reader.vocabulary)
    stream.notes += [target(example, stream.taught(name)) for name, example in firsts.items()]
    return losses


def target(first: Example, where: str) -> str:
    """What is learned of the completions that a task's data gives, by its first one."""
    said = first.completion or str(first.closing.get("reasoning_content", "")) or "calls of tools"
    asked = str(first.messages[-1]["content"])
    return f"{first.task}: trains on {where or 'what the task answers'}, such as {begun(said)} after {begun(asked)}"


def begun(text: str) -> str:
    """The beginning of a text, in quotes."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= SHOWN else f"{flat[:SHOWN]} ...")
