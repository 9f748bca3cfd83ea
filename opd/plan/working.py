"""Memory that is only there while a phase computes: approximate, each by the formula in its function."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from opd.batch import widest_row
from opd.models.heads import CHUNK_ELEMENTS, GPU_FACTOR
from opd.plan.activations import activations
from opd.plan.cards import Card
from opd.plan.held import BYTES, FLOAT32, width
from opd.plan.shape import EMBEDDING, ROOT, Shape, Weight

if TYPE_CHECKING:
    from opd.config.settings import Config
    from opd.plan.crew import Crew, Engine, Judge
    from opd.plan.layout import Layout

LEAST_ROWS = 16
"""Of a chunk of logits."""
BATCHED = 4096
"""Tokens that vLLM reads at once, unless it has more sequences or longer ones."""
SAMPLED = 3
"""Float32 copies of the logits that vLLM makes to sample: scaled, their log-softmax, random numbers."""


def widest(shape: Shape) -> int:
    """Columns of the widest thing that a layer makes of a token, its two halves together where it is gated."""
    return max((max(w.shape) for w in shape.weights if w.group.startswith("layer") and not w.adapter), default=1) * 2


def chunk_rows(shape: Shape, card: Card) -> int:
    """Rows whose logits exist at once."""
    return max(LEAST_ROWS, CHUNK_ELEMENTS * (1 if card.cpu else GPU_FACTOR) // shape.head[0])


def head_bytes(shape: Shape, dtype: str, card: Card, positions: int, crew: Crew | None = None) -> int:
    """Logits of a chunk with all that is made of them, hidden states, and the head in the computing type.

    Reading (no `crew`): products, float32 logits, their log-probs and a copy: 12 bytes and the products'. Learning: the
    products and their gradient, float32 logits and their gradient, 24 bytes more where distributions are compared.
    """
    (rows, columns), size = shape.head, BYTES[dtype]
    logits = min(positions, chunk_rows(shape, card)) * rows
    if crew is None:
        return logits * (size + 3 * FLOAT32) + positions * columns * size
    more = 6 * FLOAT32 if crew.distribution else 0
    copy = rows * columns * size if size != state_width(crew) else 0
    return logits * (2 * size + 2 * FLOAT32 + more) + state_bytes(crew, positions) + copy


def state_bytes(crew: Crew, positions: int) -> int:
    """Hidden states that go to the head, in the computing type too, and their gradient."""
    size, master = BYTES[crew.compute], state_width(crew)
    return positions * crew.student.head[1] * (2 * master + (size if size != master else 0))


def state_width(crew: Crew) -> int:
    """Bytes of a number of the residual stream: float32 where all weights are, else the computing type's."""
    return FLOAT32 if crew.lora is None else BYTES[crew.compute]


def mask_bytes(config: Config, positions: int, dtype: str) -> int:
    """Of packed rows: which position sees which, as a byte and as a number to add."""
    return positions * min(widest_row(config.longest_trained), positions) * (1 + BYTES[dtype])


def reading(judge: Judge, positions: int) -> int:
    """Of a forward pass without a way back: four widths of the residual stream, two of the widest part of a layer."""
    return positions * (4 * judge.shape.head[1] + 2 * widest(judge.shape)) * BYTES[judge.dtype]


class Gathered(NamedTuple):
    """Bytes that a rank has whole at three moments; norm and head (root) at all of them, while it learns."""

    head: int = 0
    layers: int = 0
    """The one that computes, the next one, which is fetched ahead, and gradients."""
    embedding: int = 0
    """And gradients; the end of the way back, of which no other activations are left."""


def gathered(shape: Shape, bytes_of: Callable[[Weight], int], learning: bool, layout: Layout) -> Gathered:
    """What a rank has whole while it computes, in the type that it is gathered in; a copy of its own is copied, too.

    Gradients come in that type. They are summed in float32, where a layer's buffer lives until the next one's gradients
    are there; the last tensor of a group still has its gradient when the sum's part is made. A head that is not trained
    is no shard, and counted elsewhere.
    """
    if layout.ranks == 1:
        return Gathered()
    sizes, gradients, sums = {ROOT: 0}, {ROOT: 0}, {ROOT: 0}
    for w in shape.weights:
        if shared_out(w, learning):
            learns = learning and w.trained
            for of, size in (sizes, bytes_of(w)), (gradients, bytes_of(w) * learns), (sums, FLOAT32 * learns):
                of[w.group] = of.get(w.group, 0) + w.count * size
    root = sizes.pop(ROOT) + gradients.pop(ROOT)
    own, grad, total = (of.pop(EMBEDDING, 0) for of in (sizes, gradients, sums))
    received = layout.group > 1  # in a buffer, from which it is copied
    fetched = max(sizes.values(), default=0) * received
    layer = max((fetched + sizes[n] + gradients[n] + sums[n] for n in sizes), default=0)
    last = max((sums[n] for n in sizes), default=0)
    end = max(own + max(own * received, grad) + last, grad + total + total // layout.group)
    return Gathered(root, root + layer, root + end if own else 0)


def cast_weights(crew: Crew, layout: Layout) -> tuple[int, int]:
    """Copies that autocast makes of weights of the layers, at the head and on the way back.

    One process has autocast keep them until all chunks went through the head, ranks only for the way back, and of what
    they gather in the computing type there are none.
    """
    kept, again = activations(crew.student, crew.compute, crew.lora), crew.config.student.gradient_checkpointing
    inside = [w for w in crew.student.weights if w.group.startswith("layer")]
    cast = sum(w.count for w in inside if layout.ranks == 1 or not w.narrow) / max(1, sum(w.count for w in inside))
    copies = round(kept.copies * cast)
    return 0 if again and layout.ranks > 1 else copies, copies // kept.layers if again else copies


def shared_out(weight: Weight, learning: bool) -> bool:
    """Whether ranks have parts of a weight of a model that is trained, or read."""
    return not weight.head or (learning and weight.trained)


def pushed(crew: Crew, layout: Layout) -> dict[str, int]:
    """What weights are carried to the engine in: a layer, and the largest tensor with its delta in float32.

    Where they are whole and without adapters the learner's own are read: the engine casts one tensor after the other.
    """
    groups = crew.student.groups().values()
    layer = max(sum(w.count * width(w, crew.compute) for w in group) for group in groups)
    largest = max(w.count for w in crew.student.weights)
    if crew.lora is not None:
        linear = max((w.count for w in crew.student.weights if w.linear), default=0)
        return {"transfer": layer + 2 * linear * FLOAT32}
    return {"transfer": largest * BYTES[crew.compute] if layout.group == 1 else layer + largest * FLOAT32}


def vllm_working(engine: Engine) -> int:
    """Of vLLM on a GPU, inside of its share: the tokens of one pass, and the logits that are sampled from."""
    tokens = max(engine.sequences, BATCHED, engine.longest + 1)
    hidden = 4 * engine.shape.head[1] + 2 * widest(engine.shape)
    return tokens * hidden * BYTES[engine.dtype] + engine.sequences * engine.shape.head[0] * SAMPLED * FLOAT32
