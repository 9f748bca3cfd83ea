"""Bytes of each device in each phase of a step, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_

from opd.plan import held
from opd.plan.activations import activations
from opd.plan.cards import GIB, Card
from opd.plan.crew import Crew, Engine, Judge
from opd.plan.held import BYTES, FLOAT32
from opd.plan.layout import Layout
from opd.plan.working import gathered, head_bytes, mask_bytes, pushed, reading, state_bytes, vllm_working

PHASES = ("generate", "score", "update", "push")
EXACT = ("weights", "gradients", "optimizer")
"""Parts whose bytes are exact; all others are estimates."""
PARTS = (*EXACT, "gathered", "engine weights", "KV cache", "engine work", "teacher", "activations", "cast weights",
         "mask", "head", "transfer")  # fmt: skip
"""All of them, in the order in which they are shown."""
Parts = Mapping[str, int]


@dataclass(frozen=True)
class Memory:
    """What one device holds; of equal ranks the first one, which has the most."""

    device: str
    capacity: int
    """Bytes that a run can have."""
    phases: Mapping[str, Parts]
    """Bytes by part, by phase."""
    starts: bool = True
    """Whether every engine has room for its weights and one sequence of the greatest length."""

    @property
    def peak(self) -> int:
        """Bytes of the fullest phase."""
        return max(sum(parts.values()) for parts in self.phases.values())

    @property
    def fits(self) -> bool:
        """Whether it can be done."""
        return self.starts and self.peak <= self.capacity


def memory(crew: Crew, card: Card, layout: Layout) -> tuple[Memory, ...]:
    """The devices of a layout that differ: the student's, and a teacher's where it has one to itself."""
    away = {j.device for j in crew.judges} - {"auto", crew.config.student.device, "cuda", "cuda:0", "cpu"}
    resident = _student(crew, layout) | _engines(crew, card)
    here = [j for j in crew.judges if j.device not in away]
    phases: dict[str, dict[str, int]] = {name: dict(resident) for name in PHASES}
    for name, parts in phases.items():
        parts |= _teachers(here, card, layout, scoring=name == "score", crew=crew)
    phases["score"] |= _scoring(here, crew, card, layout)
    phases["update"] |= _updating(crew, card, layout)
    phases["push"] |= pushed(crew, layout)
    starts = all(cache_bytes(e, card) >= e.longest * token_bytes(e) for e in crew.engines)
    first = Memory(layout.name(card), card.usable, phases, starts)
    return first, *(_alone(device, crew, card, layout) for device in sorted(away))


def _alone(device: str, crew: Crew, card: Card, layout: Layout) -> Memory:
    """A device that has nothing but teachers."""
    there = [j for j in crew.judges if j.device == device]
    phases = {name: _teachers(there, card, layout, scoring=name == "score", crew=crew) for name in PHASES}
    phases["score"] |= _scoring(there, crew, card, layout)
    return Memory(device, card.usable, phases)


def _student(crew: Crew, layout: Layout) -> dict[str, int]:
    kept = held.trained(crew.student, crew.compute, layout.ranks)
    return {"weights": kept.weights, "optimizer": kept.optimizer}


def _engines(crew: Crew, card: Card) -> dict[str, int]:
    return {
        "engine weights": sum(engine_weights(e, card) for e in crew.engines),
        "KV cache": sum(max(0, cache_bytes(e, card)) for e in crew.engines),
        "engine work": sum(vllm_working(e) for e in crew.engines if not card.cpu),
    }


def engine_weights(engine: Engine, card: Card) -> int:
    """Bytes of an engine's copy of a model; on a CPU vLLM packs a head that is tied to the embedding once more."""
    rows, columns = engine.shape.head
    tied = not any(w.group == "embedding" for w in engine.shape.weights)
    packed = rows * columns * BYTES[engine.dtype] if card.cpu and tied else 0
    return held.frozen(engine.shape, engine.dtype) + packed


def token_bytes(engine: Engine) -> int:
    """Bytes of KV cache that a token takes."""
    return engine.shape.cache * BYTES[engine.dtype]


def cache_bytes(engine: Engine, card: Card) -> int:
    """Bytes of an engine's KV cache: what is set, else what is left of its share; below 0 where there is no room."""
    if engine.cache is not None:
        return engine.cache
    if engine.share is None:  # transformers' grows with the batch
        return engine.sequences * engine.longest * token_bytes(engine)
    return GIB if card.cpu else int(card.memory * engine.share) - engine_weights(engine, card) - vllm_working(engine)


def judge_bytes(judge: Judge, ranks: int, crew: Crew) -> int:
    """Bytes of a judge's own weights on one device; a packed one is whole on every rank, and so is every head."""
    if judge.averages:
        return sum(held.numbers(w, ranks) for w in crew.student.weights if w.trained) * FLOAT32
    if not judge.own:
        return 0
    whole, rows = judge.bits is not None or ranks == 1, judge.shape.head
    total = held.packed(judge.shape, judge.dtype, judge.bits)
    if whole:
        return total
    head = rows[0] * rows[1] * BYTES[judge.dtype]
    return held.frozen(judge.shape, judge.dtype, ranks) + head - head // ranks


def _teachers(judges: list[Judge], card: Card, layout: Layout, scoring: bool, crew: Crew) -> dict[str, int]:
    total = 0
    for judge in judges:
        own = judge_bytes(judge, layout.ranks, crew)
        away = judge.offload and not card.cpu and not scoring
        head = judge.shape.head[0] * judge.shape.head[1] * BYTES[judge.dtype]
        total += min(own, head) if away else own
    return {"teacher": total}


def _scoring(judges: list[Judge], crew: Crew, card: Card, layout: Layout) -> dict[str, int]:
    each = [
        {
            "gathered": gathered(j.shape, j.dtype, False, layout) if j.bits is None else 0,
            "activations": reading(j, layout.positions(crew.config, j.micro_tokens)),
            "mask": mask_bytes(crew.config, layout.positions(crew.config, j.micro_tokens), j.dtype),
            "head": head_bytes(j.shape, j.dtype, card, layout.positions(crew.config, j.micro_tokens)),
        }
        for j in judges
    ]
    names: set[str] = reduce(or_, (set(e) for e in each), set())
    return {name: max(e[name] for e in each) for name in sorted(names)}


def _updating(crew: Crew, card: Card, layout: Layout) -> dict[str, int]:
    """The fuller of two moments of a micro-batch, the gradients of others being there: its head, its way back."""
    c = crew.config
    positions, again = layout.positions(c, c.optim.micro_tokens), c.student.gradient_checkpointing
    kept = activations(crew.student, crew.compute, crew.lora)
    always = {
        "gradients": held.trained(crew.student, crew.compute, layout.ranks).gradients,
        "gathered": gathered(crew.student, crew.compute, crew.lora is None, layout),
        "mask": mask_bytes(c, positions, crew.compute),
    }
    # FSDP2 gathers in the computing type itself: autocast has nothing left to cast.
    copies = 0 if layout.ranks > 1 and crew.lora is None else round(kept.copies)
    head = {
        "activations": kept.inputs(positions) if again else kept.saved(positions),
        "cast weights": copies,
        "head": head_bytes(crew.student, crew.compute, card, positions, crew),
    }
    back = {
        "activations": kept.inputs(positions) + kept.saved(positions) // kept.layers
        if again
        else kept.saved(positions),
        "cast weights": copies // kept.layers if again else copies,
        "head": state_bytes(crew, positions),
    }
    return always | max(head, back, key=lambda parts: sum(parts.values()))
