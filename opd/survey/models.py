"""Models without their weights: folders, configs, how much they read, and whether student and teacher share ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opd.config.settings import Config
from opd.models.facts import Facts, check_context, check_dealt, check_ids, check_reach, check_trainable, read_facts
from opd.models.loading import load_config, stop_ids, tokenizer_of
from opd.plan.crew import SAMPLING, pretrained
from opd.plan.origin import config_of, origin
from opd.plan.shape import Shape, Unsized, read_shape
from opd.run.checkpoint import Checkpoint
from opd.run.resuming import check_start
from opd.sources.parts import parts_of
from opd.survey.found import Found
from opd.survey.named import Named, models_of, teachers_of
from opd.teachers.cross import CrossTeacher
from opd.teaching import Foreseeing, Pupil
from opd.text.script import Script
from opd.types import Pretrained, UserError

STUDENT, TEACHER = "student.model", "teacher.model"


@dataclass(frozen=True)
class Reader:
    """The student, as far as it reads and writes."""

    model: Pretrained
    tokenizer: Any
    stop: tuple[int, ...]
    vocabulary: int
    """Columns of its output head."""


def look_at_models(cfg: Config, reach: bool, made: bool, begun: Checkpoint | None, found: Found) -> Reader | None:
    """Folders first, what is in them, how much they read, whether the run began with them, then the two vocabularies.

    Returns:
        What the student reads with; None where it is not there, or something is wrong with it.
    """
    named, there, facts = list(models_of(cfg)), dict[str, Pretrained](), dict[str, Facts]()
    for one in named:
        with found.trying():
            place = one.find(reach, made)
            if isinstance(place, str):
                found.unseen.append(f"{one}: {place}")
            else:
                there[one.setting] = place
    for setting, model in there.items():
        with found.trying():
            if setting == STUDENT:
                check_trainable(model)
            facts[setting] = read_facts(model)
    found.there = {setting: there[setting] for setting in facts}
    for one in named:
        if one.setting in facts or one.setting not in there:
            with found.trying():
                check_longest(cfg, one, there.get(one.setting))
        if cfg.devices.apart and one.setting in written(cfg):
            with found.trying():
                check_spread(cfg.devices.apart.tensor_parallel, one, there.get(one.setting))
    if STUDENT in facts or STUDENT not in there:
        with found.trying():
            found.shape = _shape(cfg)
    if STUDENT not in facts:
        return None
    with found.trying():
        reader = _reader(there[STUDENT], facts[STUDENT])
        if begun:
            check_start(begun, cfg.student, reader.tokenizer)
        look_at_teachers(cfg, reach, reader, facts, found)
        return reader
    return None


def check_longest(cfg: Config, one: Named, there: Pretrained | None) -> None:
    """See that student and teacher read prompt and completion; of those that are not here what opd's table knows.

    Raises:
        UserError: one does not.
    """
    if any(f"{name}.model" == one.setting and isinstance(t, CrossTeacher) for name, t in teachers_of(cfg)):
        return  # it reads another number of tokens
    if there is not None:
        if one.setting in (STUDENT, TEACHER):
            check_reach(one.setting, there, cfg.longest)
        return
    try:
        config, _ = config_of(origin(one.model, one.trust_remote_code))
    except UserError:
        return  # which was said, or it is not known
    check_context(one.setting, one.name, config, cfg.longest)


def written(cfg: Config) -> set[str]:
    """Settings of the models that engines write with."""
    asked = (isinstance(part, SAMPLING) and not getattr(part, "model", None) for part in parts_of(cfg.source))
    return {STUDENT, "source.model", *([TEACHER] if any(asked) else [])}


def check_spread(devices: int, one: Named, there: Pretrained | None) -> None:
    """UserError where an engine of a model cannot be on so many devices, as far as its config is known."""
    if devices == 1:
        return
    try:
        config = load_config(there) if there else config_of(origin(one.model, one.trust_remote_code))[0]
    except UserError:
        return  # which was said, or it is not known
    check_dealt(one.setting, there.path if there else one.name, config, devices)


def look_at_teachers(cfg: Config, reach: bool, reader: Reader, facts: Mapping[str, Facts], found: Found) -> None:
    """Whether they read what the student writes."""
    chat = Script(reader.tokenizer, cfg.data.template).chat
    pupil = Pupil(reader.tokenizer, reader.vocabulary, reader.model, longest=cfg.longest, chat=chat)
    for setting, teacher in teachers_of(cfg):
        url = getattr(teacher, "url", None)
        if url and not reach:
            found.unseen.append(f"{setting}.url={url}: the server is asked when a run begins")
        elif isinstance(teacher, Foreseeing) and (url or f"{setting}.model" in facts):
            with found.trying():
                teacher.check(pupil)


def _reader(model: Pretrained, facts: Facts) -> Reader:
    tokenizer = tokenizer_of(model)
    stop = stop_ids(model, tokenizer)
    check_ids(repr(model.path), max(stop, default=0), facts.vocabulary)
    return Reader(model, tokenizer, stop, facts.vocabulary)


def _shape(cfg: Config) -> Shape | None:
    """The student's; None where it is not known before it is there. Raises UserError where no adapters fit on it."""
    student = pretrained(cfg.student)
    try:
        config_of(student)
    except UserError:  # there is no such model, which was said, or its sizes are known when it is made
        return None
    try:
        return read_shape(student, cfg.student.lora)
    except Unsized:  # a run does without
        return None
