"""The live objects of a run, started in the order that they need each other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from opd.called import called
from opd.config.settings import Config, SamplingConfig
from opd.console import Console
from opd.data.prompts import PromptStream
from opd.devices.shortage import during
from opd.devices.team import Solo, Team, first_rank
from opd.early import Early
from opd.judges import Judges
from opd.learner.student import Student
from opd.models.facts import check_ids, check_trainable
from opd.models.loading import stop_ids, tokenizer_of
from opd.models.there import check_there
from opd.needs import Needs
from opd.rollout.dealt import dealt
from opd.rollout.drafts import AHEAD, Drafts, InTurn
from opd.rollout.handed import engine_of_all, own, source_of_all
from opd.rollout.revived import Reviving
from opd.run.checkpoint import Checkpoint
from opd.run.resuming import check_base, restore, restore_judges
from opd.seeds import derive
from opd.teaching import Distant, Pupil, Scorer, Selective, Teacher
from opd.text.vocabulary import check_shared
from opd.types import Pretrained, Prompt, Sampling, UserError
from opd.writing import Desk, Follower, Sampler, Writer


@dataclass(frozen=True)
class Parts:
    """The live objects of a run."""

    student: Student
    judges: Judges
    engine: Sampler
    source: Writer
    data: PromptStream
    tokenizer: Any
    stop: tuple[int, ...]
    team: Team = field(default_factory=Solo)
    followers: Sequence[Follower] = ()
    """Parts of the source that are to be told what becomes of completions."""

    @property
    def teacher(self) -> Scorer:
        """The first of the judges."""
        return self.judges.teacher


@dataclass(frozen=True)
class Texts:
    """What the student reads and writes in, and what it is asked: all that needs no weights."""

    tokenizer: Any
    stop: tuple[int, ...]
    """Ids that end a completion."""
    data: PromptStream
    losses: Sequence[str] | None = None
    """What is lost of completions that the data gives; None: they were not looked through."""


def make_models(cfg: Config, console: Console, team: Team) -> None:
    """Make or convert the models that are not there yet; later calls find them in the cache, and so do other ranks."""
    with console.task("models"):

        def made() -> list[Pretrained | None]:
            return [cfg.student.pretrained, *(t.checkpoint() for t in (cfg.teacher, cfg.reference) if t)]

        first_rank(team, made)
        for model in filter(None, made()):
            check_there(model.path)  # the teacher's is read last, long after the student's


def start_parts(
    cfg: Config, stack: ExitStack, console: Console, resume: Checkpoint | None, team: Team, texts: Texts | None = None,
    folder: Path | None = None,
) -> Parts:  # fmt: skip
    """Load data, student, teacher and engine; what is started is closed with `stack`, the last one first.

    `texts`: tokenizer and data, where they were looked at before; `folder`: the run's.
    """
    begin = functools.partial(engine_on, cfg, stack, console.warn)
    with console.task("student"):
        base = cfg.student.pretrained
        check_trainable(base)
        tokenizer = texts.tokenizer if texts else tokenizer_of(base)
        stop = texts.stop if texts else stop_ids(base, tokenizer)
    with console.task("data"), during("data"):
        data = texts.data if texts else cfg.data.start(tokenizer, derive(cfg.seed, "data"))
    for note in data.notes:
        console.say(f"data: {note}")
    with console.task("engine"):
        # Before torch runs its first kernel: the engine fixes how threads are bound.
        engine = begin(team, base, cfg.longest, "engine")
    with console.task("learner"), during("learner"):
        torch.manual_seed(derive(cfg.seed, "learner"))  # adapters are drawn, and dropout is
        begun = str(resume.model) if resume else None
        student = Student.load(cfg.student, cfg.optim, cfg.sampling.temperature, begun, team)
        if team.rank:  # all have drawn the same adapters, and drop out of other tokens
            torch.manual_seed(derive(cfg.seed, "learner", team.rank))
        check_ids(repr(base.path), max(stop, default=0), student.vocabulary)
        if resume:
            check_base(resume, base.path, student.base_digests)
            restore(resume, student)
    with console.task("teacher"):
        pupil = Pupil(tokenizer, student.vocabulary, base, student, cfg.longest, team, data.chat)
        teacher = start_teacher(cfg.teacher, pupil, data, stack)
        judges = Judges(
            teacher, start_teacher(cfg.reference, pupil, data, stack) if cfg.reference else None,
            data, tokenizer, wanted(cfg), team, cfg.optim.steps_per_batch, early(cfg, teacher, stack),
        )  # fmt: skip
        if resume:
            restore_judges(resume, judges.models)
    followers: list[Follower] = []
    with console.task("source"):

        def started(writers: Team) -> Writer:
            made = desk(cfg, begin, own(engine), judges, tokenizer, writers)
            beside = replace(whole(cfg, sampled(cfg, stop, 0)), seed=derive(cfg.seed, "beside"))
            return cfg.source.start(replace(made, sampling=beside, folder=folder, followers=followers))

        source = source_of_all(started, cfg.devices.writers(team), team)
        if resume:
            restore_judges(resume, following(followers))
    return Parts(student, judges, engine, source, data, tokenizer, stop, team, followers)


def following(followers: Sequence[Follower]) -> dict[str, Follower]:
    """Those parts of a source by the names that their states have in checkpoints."""
    return {f"source.{number}": follower for number, follower in enumerate(followers)}


def engine_on(
    cfg: Config, stack: ExitStack, told: Callable[[str], None], team: Team, model: Pretrained, longest: int, name: str
) -> Sampler:
    """A started engine on a model, closed with `stack`; `name` is what its seed goes by, `told` hears of its ends."""
    settings, seed = cfg.rollout, derive(cfg.seed, name, bits=32)
    if apart := cfg.devices.apart:
        from opd.rollout.apart.fleet import Engines

        settings = Engines(
            settings, apart.count, apart.threads, apart.timeout, apart.restarts, told, apart.tensor_parallel
        )
    if cfg.devices.revives:
        settings = Reviving(settings, cfg.devices.revives, told)
    with during("engine"):
        engine = engine_of_all(
            lambda writers: dealt(settings.start(model, max_len=longest, seed=seed), writers),
            cfg.devices.writers(team), team,
        )  # fmt: skip
    stack.callback(engine.close)
    return engine


def drafts(
    cfg: Config, parts: Parts, stack: ExitStack, console: Console, first: int, resume: Checkpoint | None
) -> Drafts:
    """Who writes the rollouts of each step from `first` on: in turn with the learner, or ahead of it."""

    def plan(step: int) -> tuple[Sequence[Prompt], Sampling]:
        return parts.data.take(step), sampling(cfg, parts, step)

    if not cfg.devices.ahead:
        if resume and resume.tensors(AHEAD):
            console.say(
                f"ahead: {resume.path.name} holds rollouts that were written ahead; with devices.ahead=0 they are "
                "left, and written again with the weights of now"
            )
        return InTurn(parts.source, parts.engine, plan)
    from opd.rollout.apart.ahead import Ahead
    from opd.rollout.apart.followed import followed

    writers, steps = cfg.devices.writers(parts.team), range(first, cfg.steps)
    ahead = Ahead(own(parts.source), own(parts.engine), plan, steps, cfg.devices.ahead) if writers else None
    writing = followed(ahead, plan, writers, parts.team)
    stack.callback(writing.close)
    if resume and (note := writing.restore(resume.path)):
        console.say(note)
    return writing


def start_teacher(teacher: Teacher, pupil: Pupil, data: PromptStream, stack: ExitStack) -> Scorer:
    """Load a teacher, and let it look through the examples where it treats them differently."""
    with during("teacher"):
        scorer = teacher.start(pupil)
        stack.callback(scorer.close)
        if isinstance(scorer, Selective):
            scorer.admit(data.examples())
    return scorer


def early(cfg: Config, teacher: Scorer, stack: ExitStack) -> Early | None:
    """Whoever has a teacher elsewhere judge while others are written; not where it is asked about the learner."""
    if not isinstance(teacher, Distant) or wanted(cfg).student_top_k:
        return None
    judge = Early(teacher, wanted(cfg))
    stack.callback(judge.close)
    return judge


def overhang(cfg: Config, teacher: Scorer, prompts: Sequence[Prompt]) -> int:
    """How many tokens more than the student's longest prompt the teacher is shown: a template, a context of its own."""
    return max(0, max(map(len, teacher.read(prompts)), default=0) - cfg.data.max_prompt_tokens)


def desk(
    cfg: Config, begin: Callable[[Team, Pretrained, int, str], Sampler], engine: Sampler, judges: Judges,
    tokenizer: Any, team: Team,
) -> Desk:  # fmt: skip
    """What the source writes with; the engine that samples the teacher is started when it is first asked for.

    `begin` starts one more on a model, `team` is those who write.
    """
    teacher, data = judges.teacher, judges.data

    @functools.cache
    def teacher_engine() -> Sampler:
        model, name = cfg.teacher.checkpoint(), called("teacher", cfg.teacher)
        if model is None or cfg.teacher.provides.spans:
            why = "has no checkpoint to load into an engine" if model is None else "writes in tokens of its own"
            raise UserError(
                f"source={called('source', cfg.source)}: it samples the teacher, and teacher={name} {why}; "
                "use teacher=local"
            )
        longest = cfg.longest + overhang(cfg, teacher, [Prompt(e, ()) for e in data.examples()])
        return begin(team, model, longest, "teacher engine")

    def model_engine(path: str) -> Sampler:
        model = Pretrained(path, cfg.student.trust_remote_code)
        check_shared(tokenizer, tokenizer_of(model))
        return begin(team, model, cfg.longest, "model engine")

    known = (data.task_of, data.names, data.rendering)
    made = Desk(
        engine, teacher_engine, teacher.read, tokenizer, *known, model_engine, cfg.teacher.checkpoint, team=team,
        another=data.another,
    )  # fmt: skip
    return replace(made, finished=judges.early.finished) if judges.early else made


def wanted(cfg: Config) -> Needs:
    """What the judges are asked for: the objective's needs, and the exact KL's where the teacher has a distribution.

    The teacher's log-probs are asked for whenever it has them, for the figures of the run.
    """
    has = cfg.teacher.provides
    own = cfg.objective.needs
    exact = has.distribution and not has.spans and (cfg.log.exact_kl or own.student_top_k > 0)
    return own | Needs(logprobs=has.logprobs, spans=has.spans, distribution=exact)


def sampling(cfg: Config, parts: Parts, step: int) -> Sampling:
    """How the student writes in this step."""
    return sampled(cfg, parts.stop, step)


def whole(cfg: Config, drawn: Sampling) -> Sampling:
    """The same with all the room that a completion may have, whatever the horizon of its step is."""
    return replace(drawn, max_tokens=cfg.sampling.max_tokens)


def sampled(cfg: Config, stop: tuple[int, ...], step: int) -> Sampling:
    """The same, with the ids that end a completion."""
    s: SamplingConfig = cfg.sampling
    return Sampling(
        max_tokens=s.tokens(step), n=s.n, temperature=s.temperature, top_p=s.top_p, top_k=s.top_k, min_p=s.min_p,
        stop=stop, seed=derive(cfg.seed, "rollout", step), repetition=s.repetition,
    )  # fmt: skip
