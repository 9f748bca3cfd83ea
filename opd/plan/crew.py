"""Which models take part in a run, and in what form: the student, its engines, those who judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from opd.called import called
from opd.config.settings import Config
from opd.devices.compute import settled
from opd.learner.config import Lora
from opd.plan.origin import Made, origin
from opd.plan.shape import Shape, read_shape
from opd.rollout.vllm import GIB, Vllm
from opd.sources.gated import Gated
from opd.sources.parts import parts_of
from opd.sources.recorded import Recorded
from opd.sources.teacher import TeacherSource
from opd.sources.teacher_mixed import TeacherMixed
from opd.teachers.local import LocalTeacher
from opd.teachers.own import SelfTeacher
from opd.teaching import Composed
from opd.types import Pretrained, UserError

SAMPLING = (TeacherSource, TeacherMixed, Gated)
"""Sources with an engine of the teacher, or of the model that they name in its place."""


@dataclass(frozen=True)
class Engine:
    """A model that writes."""

    name: str
    shape: Shape
    dtype: str
    share: float | None
    """Of a GPU's memory, for weights and KV cache; None: it takes what it needs."""
    cache: int | None
    """Bytes of KV cache, where they are set."""
    sequences: int
    """Decoded at once, at most."""
    longest: int
    """Tokens of prompt and completion."""


@dataclass(frozen=True)
class Judge:
    """A model that scores, with weights of its own; `shape` without weights where it has the student's."""

    name: str
    shape: Shape
    dtype: str
    micro_tokens: int
    bits: str | None = None
    offload: bool = False
    device: str = "auto"
    own: bool = True
    """Whether it has weights of its own; else it reads with the learner's."""
    averages: bool = False
    """Whether it keeps an average of the trained weights, in float32."""
    moving: bool = False
    """Whether its head is trained meanwhile, so that it keeps a copy where distributions are compared."""


@dataclass(frozen=True)
class Crew:
    """Everyone, with the config that names them, its dtypes decided."""

    config: Config
    student: Shape
    lora: Lora | None
    engines: tuple[Engine, ...]
    judges: tuple[Judge, ...]
    elsewhere: tuple[str, ...] = ()
    """Teachers whose work is done on other machines, or was done before."""

    @property
    def compute(self) -> str:
        """The dtype that the student computes in."""
        return self.config.student.dtype

    @property
    def distribution(self) -> bool:
        """Whether whole distributions of the teacher are compared with the student's."""
        has = self.config.teacher.provides
        exact = self.config.log.exact_kl and has.distribution and not has.spans
        return self.config.objective.needs.distribution or exact

    @property
    def notes(self) -> list[str]:
        """Where sizes are from, and whose are left out."""
        shapes = [self.student, *(j.shape for j in self.judges), *(e.shape for e in self.engines)]
        unknown = {s.name for s in shapes if s.multiplies is None}
        return [
            *dict.fromkeys(s.note for s in shapes if s.note),
            *(f"{name}: on other machines, not in these figures" for name in self.elsewhere),
            *(f"{name}: does more than linear layers and attention: its seconds are not known" for name in unknown),
        ]


def crew_of(config: Config, auto: str | None) -> Crew:
    """Read the configs of all models of a run; no weight is read.

    Args:
        config: of the run.
        auto: what `dtype: auto` is on the planned device; None: as on this machine.

    Raises:
        UserError: a model's config is not to be had.
    """
    student = settled(config.student, auto)
    rest = {"rollout": settled(config.rollout, student.dtype)}
    config = settled(replace(config, student=student, **rest), auto)
    shape, base = read_shape(pretrained(student), student.lora), read_shape(pretrained(student))
    judges, elsewhere = [], []
    for name, teacher in {"teacher": config.teacher, "reference": config.reference}.items():
        found = list(judges_of(name, teacher, config, shape)) if teacher is not None else []
        judges += found
        elsewhere += [name] if getattr(teacher, "url", None) else []
    return Crew(config, shape, student.lora, tuple(engines_of(config, base)), tuple(once(judges)), tuple(elsewhere))


def pretrained(settings: Any) -> Pretrained | Made:
    """Whose config is read; what is made on first use is not made for that."""
    return origin(settings.model, settings.trust_remote_code)


def judges_of(name: str, teacher: Any, config: Config, student: Shape) -> Iterator[Judge]:
    """The models that a teacher's settings load."""
    if isinstance(teacher, Composed):
        for inner, one in teacher.inner.items():
            own = name if inner == "teacher" else f"{name} {inner.removeprefix('teachers.')}"
            yield from judges_of(own, one, config, student)
    elif isinstance(teacher, LocalTeacher):
        yield Judge(
            name, read_shape(pretrained(teacher)), teacher.dtype, teacher.micro_tokens, teacher.quantization,
            teacher.offload, teacher.device,
        )  # fmt: skip
    elif isinstance(teacher, SelfTeacher):
        frozen = teacher.weights == "base" and config.student.lora is None
        base = read_shape(pretrained(config.student)) if frozen else student
        dtype = teacher.dtype if frozen else config.student.dtype
        moving = teacher.weights != "base" and config.student.lora is None
        yield Judge(
            name, base, dtype, teacher.micro_tokens, own=frozen, averages=teacher.weights == "ema", moving=moving
        )


def once(judges: list[Judge]) -> Iterator[Judge]:
    """Those that differ only in their name share their weights."""
    seen = set()
    for judge in judges:
        key = replace(judge, name="", micro_tokens=0)
        if judge.own and key in seen:
            judge = replace(judge, own=False)
        seen.add(key)
        yield judge


def engines_of(config: Config, student: Shape) -> Iterator[Engine]:
    """The run's engine, and those that sample other models than the student."""
    yield _engine("engine", config, student)
    yield from filter(None, (own_engine(config, source) for source in parts_of(config.source)))


def own_engine(config: Config, source: Any) -> Engine | None:
    """The engine that a source has of its own, as its settings say; None: it has none."""
    if isinstance(source, Recorded):
        return _engine("engine of the student as it began", config, read_shape(origin(source.model)))
    if not isinstance(source, SAMPLING):
        return None
    model = getattr(source, "model", None) or getattr(config.teacher, "model", None)
    if model is None:
        raise UserError(
            f"source={called('source', source)}: it samples the teacher, and teacher="
            f"{called('teacher', config.teacher)} names no model; use teacher=local"
        )
    return _engine("teacher's engine", config, read_shape(origin(model)))


def _engine(name: str, config: Config, shape: Shape) -> Engine:
    r: Any = config.rollout
    if isinstance(r, Vllm):
        cache = None if r.memory_gb is None else int(r.memory_gb * GIB)
        return Engine(name, shape, r.dtype, r.gpu_memory_utilization, cache, r.max_num_seqs, config.longest)
    dtype, batch = getattr(r, "dtype", config.student.dtype), getattr(r, "batch_size", 256)
    return Engine(name, shape, dtype, None, None, batch, config.longest)
