"""What to change where a run does not fit: the fewest settings that make it, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, get_args

from opd.config.settings import Config
from opd.learner.config import Lora
from opd.models.facts import undealt
from opd.plan.cards import NODE
from opd.plan.crew import crew_of
from opd.plan.forecast import Forecast, forecast
from opd.plan.layout import Layout
from opd.plan.memory import memory
from opd.rollout.vllm import Vllm
from opd.teachers.local import LocalTeacher
from opd.teachers.quantized import Bits

SHARES = (0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15)
"""Of a GPU for its engine, to be tried."""
MOST = 4
"""Settings that are changed at once."""
RANKS = (1, 2, 4, 8)
"""Layouts that are shown beside the chosen one, and twice as many up to --gpus."""
LESS = 0.99
"""Of a step's time: what copies of the weights have to save."""


@dataclass(frozen=True)
class Change:
    """One setting, as it is typed, and the config that has it."""

    setting: str
    part: str
    """Field of the config."""
    value: Any
    price: int = 0
    """0: the same results, if slower; 1: an approximate teacher; 2: another method."""


def changes(config: Config, layout: Layout) -> list[Change]:
    """What could be changed, the cheapest first: no other result, then slower, then another result."""
    s, o, t, r = config.student, config.optim, config.teacher, config.rollout
    longest = config.longest_trained
    out = []
    if isinstance(r, Vllm):
        out += [
            Change(f"rollout.gpu_memory_utilization={x:g}", "rollout", replace(r, gpu_memory_utilization=x))
            for x in sorted(SHARES, key=lambda x: abs(x - r.gpu_memory_utilization))
            if x != r.gpu_memory_utilization
        ]
    fewer = max(longest, 4096)
    if fewer < o.micro_tokens:
        out.append(Change(f"optim.micro_tokens={fewer}", "optim", replace(o, micro_tokens=fewer)))
    if not s.gradient_checkpointing:
        again = replace(s, gradient_checkpointing=True)
        out.append(Change("student.gradient_checkpointing=true", "student", again))
    if isinstance(t, LocalTeacher) and t.quantization is None and not t.offload:
        if layout.ranks == 1:  # shards stay where they are
            out.append(Change("teacher.offload=true", "teacher", replace(t, offload=True)))
        for bits in get_args(Bits):
            out.append(Change(f"teacher.quantization={bits}", "teacher", replace(t, quantization=bits), 1))
    if s.lora is None:
        adapted = replace(s, lora=Lora(), gradient_checkpointing=True)
        out.append(Change("student=lora", "student", adapted, 2))
    return out


def attempts(config: Config, layout: Layout, dearest: int) -> Iterator[tuple[tuple[Change, ...], Config]]:
    """The config with one change, then with two, and so on, the cheap ones alone first; a part is changed once."""
    known = changes(config, layout)
    for price in sorted({c.price for c in known if c.price <= dearest}):
        for count in range(1, MOST + 1):
            for some in combinations([c for c in known if c.price <= price], count):
                if max(c.price for c in some) == price and len({c.part for c in some}) == count:
                    yield some, replace(config, **{c.part: c.value for c in some})


def mended(found: Forecast, dearest: int = 2) -> tuple[str, Forecast] | None:
    """The nearest settings that fit on the same devices, with what they come to; None where there are none.

    Args:
        found: what does not fit.
        dearest: the highest `Change.price` that is paid.
    """
    for some, config in attempts(found.crew.config, found.layout, dearest):
        if all(device.fits for device in memory(crew_of(config, None), found.card, found.layout)):
            return " ".join(c.setting for c in some), forecast(config, found.card, found.layout, found.lengths)
    return None


def layouts(found: Forecast, gpus: int | None) -> Sequence[Layout]:
    """Those that are compared: powers of two, up to the GPUs that there are or eight; a processor has one.

    Where they are faster also those with several copies of the weights; on one machine also one GPU that learns, or
    half of them, and all others with engines that write ahead, each on as few as it fits on.
    """
    chosen = found.layout
    if found.card.cpu:
        return [chosen]
    most = max(gpus or 0, chosen.ranks, RANKS[-1])
    counts = {*RANKS, *(2**k for k in range(11) if 2**k <= most), chosen.ranks, gpus or 1}
    there = gpus or NODE
    sizes = [n for n in (2, 4, 8, there) if 1 < n <= min(there, NODE)]
    beside = {Layout(learners, n - learners, chosen.ahead or 1) for n in sizes for learners in (1, n // 2)}
    apart = {spread(found, layout) for layout in beside}
    apart |= {chosen} if chosen.engines else set()
    ranks = [layout for n in sorted(counts) for layout in (Layout(n), *copied(found, Layout(n)))]
    ranks += [chosen] if chosen.shard and chosen not in ranks else []
    return [*ranks, *sorted(apart, key=lambda x: (x.ranks, x.engines * x.spread, x.spread, x.ahead))]


def spread(found: Forecast, layout: Layout) -> Layout:
    """The same devices, with engines that are on as few of them as they fit on; as it is where they fit on none."""
    configs = [engine.shape.config for engine in found.crew.engines]
    for size in RANKS:
        tried = replace(layout, engines=layout.engines // size, spread=size)
        if layout.engines % size or any(undealt(config, size) for config in configs):
            continue
        if all(device.fits for device in memory(found.crew, found.card, tried)[1:]):
            return tried
    return layout


def copied(found: Forecast, layout: Layout) -> Iterator[Layout]:
    """As many ranks with several copies of the weights: the smallest groups that fit, where steps are shorter then."""
    sizes = (size for size in RANKS if size < layout.ranks and layout.ranks % size == 0)
    tried = (forecast(found.crew.config, found.card, replace(layout, shard=size), found.lengths) for size in sizes)
    best = next((one for one in tried if one.fits), None)
    whole = forecast(found.crew.config, found.card, layout, found.lengths)
    if best is not None and best.step < LESS * whole.step:
        yield best.layout
