"""Seconds of each phase of a step, predicted: FLOPs over peaks, bytes over bandwidths, and what neither accounts for.

    score, update   flops / (products * peak) + moved / (elementwise * bandwidth) + operations * launch
    generate        decoded tokens of a batch, one after the other:
                    max(flops / (decoding * peak), (weights + cache) / (memory * bandwidth)) + step + layers * layer
                    + batch * sequence; and the prompts once, as in `score`
    push            bytes / (memory * bandwidth) + tensors * tensor

On several ranks what is gathered and reduced goes over the links meanwhile: the larger of the two counts. Each micro-
batch gathers layers twice in a group and sums gradients there, and then each rank's part of them among the groups. To
engines that are apart weights go through the host's memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from opd.plan import held
from opd.plan.activations import activations
from opd.plan.cards import Card
from opd.plan.crew import Crew, Engine, Judge, own_engine
from opd.plan.held import BYTES, FLOAT32
from opd.plan.layout import Layout
from opd.plan.memory import cache_bytes, offloaded, token_bytes
from opd.plan.rates import OPERATIONS, OPTIMIZER, WAYS, rates, sustained
from opd.plan.shape import Shape, Weight
from opd.plan.turns import turns
from opd.plan.work import Lengths, Work, forward_flops, update_flops, work_of, writing_of
from opd.plan.working import chunk_rows, shared_out

ASK, REDRAW = "ask", "redraw"
"""Beside `generate`: the teacher is asked about prompts, and others are taken in the place of those given up."""
READ_LOGIT, TRAINED_LOGIT, COMPARED_LOGIT, SAMPLED_LOGIT = 14, 30, 60, 40
"""Bytes moved for each logit that is read, trained on, compared with the teacher's besides, or sampled from."""


def seconds(crew: Crew, card: Card, layout: Layout, lengths: Lengths) -> dict[str, float]:
    """Seconds of each phase on each rank, all at once; NaN where the operations of a model are not known."""
    work = work_of(crew.config, layout, lengths)
    return {
        **written(crew, card, layout, lengths),
        "score": sum(score(judge, crew, card, layout, work) for judge in crew.judges),
        "update": update(crew, card, layout, work),
        "push": push(crew, card, layout),
    }


def written(crew: Crew, card: Card, layout: Layout, lengths: Lengths) -> dict[str, float]:
    """Seconds of those who write, one after the other: of a step's completions, and of what is written beside them."""
    out = {"generate": 0.0}
    for turn in turns(crew.config):
        engine = own_engine(crew.config, turn.own) or crew.engines[0]
        # An engine reads a prompt once for all of its samples where it keeps prefixes.
        read = 1 / turn.n if getattr(crew.config.rollout, "prefix_caching", False) else 1.0
        once = generate(engine, card, writing_of(crew.config, layout, lengths, turn), read, layout.spread)
        first = ASK if turn.asked else "generate"
        out[first] = out.get(first, 0.0) + once
        if turn.rounds > 1:
            out[REDRAW] = out.get(REDRAW, 0.0) + once * (turn.rounds - 1)
    return out


def generate(engine: Engine, card: Card, work: Work, prompts: float, spread: int = 1) -> float:
    """Prompts, then every token of the longest completion; more where not all sequences have room at once.

    Args:
        engine: who writes.
        card: on what.
        work: its share.
        prompts: how often a prompt is read for each of its samples.
        spread: on how many it is; what each has worked out of a layer is summed over all, twice.
    """
    r, shape, lengths = rates(card), engine.shape, work.lengths
    room = cache_bytes(engine, card, spread) / (token_bytes(engine, spread) * (lengths.prompt + lengths.completion))
    batch = max(1.0, min(engine.sequences, work.sequences, room))
    passes = max(lengths.longest, work.sequences * lengths.completion / batch)
    alive = work.tokens / passes
    once = replace(work, lengths=replace(lengths, prompt=lengths.prompt * prompts))
    per_token = forward_flops(shape, once).total / max(1.0, work.tokens)
    context = lengths.prompt + lengths.completion / 2
    kept = alive * context * token_bytes(engine, spread)
    read = shape.parameters * BYTES[engine.dtype] / spread + kept + alive * shape.head[0] * SAMPLED_LOGIT
    busy = max(
        alive * per_token / spread / sustained(card, engine.dtype, shape.head[1], "decode"),
        read / (r.memory * card.bandwidth),
    )  # the prompts' operations are in `per_token`
    if spread > 1:
        size = alive * shape.head[1] * BYTES[engine.dtype] * 2 * (spread - 1) / spread
        busy += 2 * shape.layers * (spread * card.launch + size / (card.link * r.link))
    return passes * (busy + r.step + r.layer * shape.layers + r.sequence * alive)


def score(judge: Judge, crew: Crew, card: Card, layout: Layout, work: Work) -> float:
    """A forward pass; weights that live with the host come over its link first."""
    r, shape = rates(card), judge.shape
    saved = _layer_bytes(shape, judge.dtype) * shape.layers * work.positions
    moved = 2 * saved + work.tokens * shape.head[0] * READ_LOGIT
    micros = _micros(work, layout.positions(crew.config, judge.micro_tokens))
    busy = forward_flops(shape, work).total / sustained(card, judge.dtype, shape.head[1], "read")
    busy += moved / (r.elementwise * card.bandwidth) + _overhead(shape, card, work, micros, 1)
    fetched = held.frozen(shape, judge.dtype) / card.host if offloaded(judge, card, layout) else 0.0
    apart = 0 if judge.bits is not None else sum(w.count for w in shape.weights if shared_out(w, False))
    return max(busy, _within(apart * BYTES[judge.dtype], card, layout) * micros) + fetched


def update(crew: Crew, card: Card, layout: Layout, work: Work) -> float:
    """There, back, and the optimizer."""
    r, shape, c = rates(card), crew.student, crew.config
    kept, again = activations(shape, crew.compute, crew.lora), c.student.gradient_checkpointing
    micros = _micros(work, layout.positions(c, c.optim.micro_tokens))
    moved = kept.per_layer * shape.layers * work.positions * (WAYS + 2 * again)
    moved += work.tokens * shape.head[0] * (COMPARED_LOGIT if crew.distribution else TRAINED_LOGIT)
    moved += sum(held.numbers(w, layout.group) for w in shape.weights if w.trained) * OPTIMIZER
    moved += 3 * kept.copies * micros
    busy = update_flops(crew, work) / sustained(card, crew.compute, shape.head[1], "learn")
    busy += moved / (r.elementwise * card.bandwidth)
    busy += _overhead(shape, card, work, micros, 4 if again else 3)
    gathered = 2 * cut_bytes(crew, held.gathered_width)  # on the way there and on the way back
    reduced = sum(w.count for w in shape.weights if w.trained) * FLOAT32
    return max(busy, _within(gathered + reduced, card, layout) * micros + _between(reduced, card, layout))


def cut_bytes(crew: Crew, width: Callable[[Weight, str], int]) -> int:
    """Of the student's weights that ranks have parts of, when they are whole."""
    return sum(w.count * width(w, crew.compute) for w in crew.student.weights if shared_out(w, True))


def push(crew: Crew, card: Card, layout: Layout) -> float:
    """Every weight under its name, merged and whole."""
    r = rates(card)
    count = sum(w.count for w in crew.student.weights if not w.adapter)
    names = sum(not w.adapter for w in crew.student.weights)
    kept = count * (FLOAT32 if crew.lora is None else BYTES[crew.compute])
    moved = kept + count * 2 * BYTES[crew.engines[0].dtype]
    sent = _within(cut_bytes(crew, held.width), card, layout)
    if layout.engines:  # into memory that processes share, and out of it, each device of an engine by its own link
        sent += (1 + 1 / layout.spread) * kept / (card.bandwidth if card.cpu else card.host)
    return moved / (r.memory * card.bandwidth) + names * r.tensor + sent


def _layer_bytes(shape: Shape, dtype: str) -> float:
    """What a layer makes of a position, as if it was saved."""
    return activations(shape, dtype, None).per_layer


def _micros(work: Work, positions: int) -> float:
    """Micro-batches of a step."""
    return math.ceil(work.positions / max(1, positions)) if work.positions else 0


def _overhead(shape: Shape, card: Card, work: Work, micros: float, ways: int) -> float:
    """Of small operations: those of layers, and of chunks of the head."""
    chunks = max(micros, work.tokens / chunk_rows(shape, card))
    return ways * OPERATIONS * card.launch * (micros * shape.layers + chunks)


def _within(size: float, card: Card, layout: Layout) -> float:
    """Seconds on the links for so many bytes that are shared out in a group, and made whole on each rank or summed."""
    return size * (layout.group - 1) / layout.group / (layout.link(card, within=True) * rates(card).link)


def _between(size: float, card: Card, layout: Layout) -> float:
    """Seconds until a rank's part of so many bytes is summed over all groups, there and back, as a ring does."""
    groups = layout.ranks // layout.group
    sent = 2 * size / layout.group * (groups - 1) / groups
    return sent / (layout.link(card, within=False) * rates(card).link)
