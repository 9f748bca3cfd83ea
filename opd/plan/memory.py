"""Bytes of each device in each phase of a step, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_

from opd.plan import held
from opd.plan.activations import activations
from opd.plan.cards import GIB, Card
from opd.plan.crew import Crew, Engine, Judge
from opd.plan.held import BYTES, FLOAT32
from opd.plan.layout import Layout
from opd.plan.shape import Weight
from opd.plan.working import (
    cast_weights,
    gathered,
    head_bytes,
    mask_bytes,
    pushed,
    reading,
    state_bytes,
    vllm_working,
)

PHASES = ("generate", "score", "update", "push")
EXACT = ("weights", "gradients", "optimizer")
"""Parts whose bytes are exact; all others are estimates."""
PARTS = (*EXACT, "gathered shards", "engine weights", "KV cache", "engine work", "teacher", "activations",
         "cast weights", "attention mask", "logits", "transfer")  # fmt: skip
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
    count: int = 1
    """How many there are of it."""

    @property
    def peak(self) -> int:
        """Bytes of the fullest phase."""
        return max(sum(parts.values()) for parts in self.phases.values())

    @property
    def fits(self) -> bool:
        """Whether it can be done."""
        return self.starts and self.peak <= self.capacity


def memory(crew: Crew, card: Card, layout: Layout) -> tuple[Memory, ...]:
    """The devices of a layout that differ: the student's, its engines' and a teacher's where these have their own."""
    away = {j.device for j in crew.judges} - {"auto", crew.config.student.device, "cuda", "cuda:0", "cpu"}
    away = away if layout.ranks == 1 else set()  # shards are where the ranks are
    apart = layout.engines if not card.cpu else 0
    resident = _student(crew, layout) | (_engines(crew, card, layout) if not apart else {})
    here = [j for j in crew.judges if j.device not in away]
    phases: dict[str, dict[str, int]] = {name: dict(resident) for name in PHASES}
    for name, parts in phases.items():
        parts |= _teachers(here, card, layout, scoring=name == "score", crew=crew)
    phases["score"] |= _scoring(here, crew, card, layout)
    phases["update"] |= _updating(crew, card, layout)
    phases["push"] |= pushed(crew, layout)
    starts = all(cache_bytes(e, card, layout.spread) >= e.longest * token_bytes(e, layout.spread) for e in crew.engines)
    first = Memory(layout.name(card), layout.usable(card), phases, starts or bool(apart), layout.ranks)
    writing = [_writing(crew, card, layout, starts)] if apart else []
    return first, *writing, *(_alone(device, crew, card, layout) for device in sorted(away))


def _writing(crew: Crew, card: Card, layout: Layout, starts: bool) -> Memory:
    """A device that has nothing but an engine; new weights come to it one after the other."""
    phases: dict[str, dict[str, int]] = {name: _engines(crew, card, layout) for name in PHASES}
    phases["push"]["transfer"] = max(w.count * held.width(w, crew.compute) for w in crew.student.weights)
    count, what = layout.engines * layout.spread, "an engine" if layout.spread == 1 else "a part of an engine"
    name = f"each of {count} {card.name} with {what}" if count > 1 else f"the engine's {card.name}"
    return Memory(name, card.usable, phases, starts, count)


def _alone(device: str, crew: Crew, card: Card, layout: Layout) -> Memory:
    """A device that has nothing but teachers."""
    there = [j for j in crew.judges if j.device == device]
    phases = {name: _teachers(there, card, layout, scoring=name == "score", crew=crew) for name in PHASES}
    phases["score"] |= _scoring(there, crew, card, layout)
    return Memory(device, card.usable, phases)


def _student(crew: Crew, layout: Layout) -> dict[str, int]:
    kept = held.trained(crew.student, crew.compute, layout.group)
    return {"weights": kept.weights, "optimizer": kept.optimizer}


def _engines(crew: Crew, card: Card, layout: Layout) -> dict[str, int]:
    """Of one device; a processor has all that are apart, of which each rank's share counts a part."""
    several, among = (layout.writers * layout.spread, layout.ranks) if card.cpu else (1, 1)
    return {
        "engine weights": several * sum(engine_weights(e, card, layout.spread) for e in crew.engines) // among,
        "KV cache": several * sum(max(0, cache_bytes(e, card, layout.spread)) for e in crew.engines) // among,
        "engine work": sum(vllm_working(e) for e in crew.engines if not card.cpu),
    }


def engine_weights(engine: Engine, card: Card, spread: int = 1) -> int:
    """Bytes of an engine's copy of a model on each of the devices that it is spread over.

    On a CPU vLLM packs a head that is tied to the embedding once more.
    """
    rows, columns = engine.shape.head
    tied = not any(w.group == "embedding" for w in engine.shape.weights)
    packed = rows * columns * BYTES[engine.dtype] if card.cpu and tied else 0
    return (held.frozen(engine.shape, engine.dtype) + packed) // spread


def token_bytes(engine: Engine, spread: int = 1) -> int:
    """Bytes of KV cache that a token takes on each device: each has some heads of keys and values, at least one."""
    return engine.shape.cache * BYTES[engine.dtype] // min(spread, engine.shape.cached_heads)


def cache_bytes(engine: Engine, card: Card, spread: int = 1) -> int:
    """Bytes of an engine's KV cache on each device: what is set, else what is left of its share; below 0: no room."""
    if engine.cache is not None:
        return engine.cache
    if engine.share is None:  # transformers' grows with the batch
        return engine.sequences * engine.longest * token_bytes(engine)
    if card.cpu:
        return GIB
    return int(card.memory * engine.share) - engine_weights(engine, card, spread) - vllm_working(engine)


def judge_bytes(judge: Judge, ranks: int, crew: Crew) -> int:
    """Bytes of what a judge keeps on one of `ranks` that share a copy; a packed one is whole, and so is every head."""
    head = head_weights(judge) if judge.moving and crew.distribution else 0
    if judge.averages:
        return head + sum(held.numbers(w, ranks) for w in crew.student.weights if w.trained) * FLOAT32
    if not judge.own:
        return head
    if judge.bits is not None:
        return held.packed(judge.shape, judge.dtype, judge.bits)
    return held.frozen(judge.shape, judge.dtype, ranks)


def head_weights(judge: Judge) -> int:
    """Bytes of a judge's output head."""
    return judge.shape.head[0] * judge.shape.head[1] * BYTES[judge.dtype]


def _teachers(judges: list[Judge], card: Card, layout: Layout, scoring: bool, crew: Crew) -> dict[str, int]:
    total = 0
    for judge in judges:
        own = judge_bytes(judge, layout.group, crew)
        away = offloaded(judge, card, layout) and not scoring
        total += min(own, head_weights(judge)) if away else own
    return {"teacher": total}


def offloaded(judge: Judge, card: Card, layout: Layout) -> bool:
    """Whether a judge's body lives with the host between its turns; one in shards stays."""
    return judge.offload and not card.cpu and layout.ranks == 1


def _scoring(judges: list[Judge], crew: Crew, card: Card, layout: Layout) -> dict[str, int]:
    each = [
        {
            "gathered shards": max(gathered(j.shape, partial(_width, j), False, layout)) if j.bits is None else 0,
            "activations": reading(j, layout.positions(crew.config, j.micro_tokens)),
            "attention mask": mask_bytes(crew.config, layout.positions(crew.config, j.micro_tokens), j.dtype),
            "logits": head_bytes(j.shape, j.dtype, card, layout.positions(crew.config, j.micro_tokens)),
        }
        for j in judges
    ]
    names: set[str] = reduce(or_, (set(e) for e in each), set())
    return {name: max(e[name] for e in each) for name in sorted(names)}


def _width(judge: Judge, weight: Weight) -> int:
    """Bytes of a number of a judge's weight."""
    return BYTES[judge.dtype]


def _updating(crew: Crew, card: Card, layout: Layout) -> dict[str, int]:
    """The fullest moment of a micro-batch, the gradients of others being there: its head, its way back, its end."""
    c = crew.config
    positions, again = layout.positions(c, c.optim.micro_tokens), c.student.gradient_checkpointing
    kept = activations(crew.student, crew.compute, crew.lora)
    always = {
        "gradients": held.trained(crew.student, crew.compute, layout.group).gradients,
        "attention mask": mask_bytes(c, positions, crew.compute),
    }
    whole = gathered(crew.student, partial(held.gathered_width, compute=crew.compute), True, layout)
    at_head, on_way = cast_weights(crew, layout)
    head = {
        "gathered shards": whole.head,
        "activations": kept.inputs(positions) if again else kept.saved(positions),
        "cast weights": at_head,
        "logits": head_bytes(crew.student, crew.compute, card, positions, crew),
    }
    back = {
        "gathered shards": whole.layers,
        "activations": kept.inputs(positions) + kept.saved(positions) // kept.layers
        if again
        else kept.saved(positions),
        "cast weights": on_way,
        "logits": state_bytes(crew, positions),
    }
    end = {"gathered shards": whole.embedding, "activations": positions * kept.per_input}
    return always | max(head, back, end, key=lambda parts: sum(parts.values()))
