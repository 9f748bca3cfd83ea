"""Bytes that a model's weights, gradients and optimizer take on one device, whole or as a rank's shard: exact.

Sharding is FSDP2's: every parameter is cut along its first dimension into chunks of ceil(rows / ranks) rows, as
`torch.chunk` does, and each rank holds a whole chunk in memory, the last one's padded. Gradients come out of one padded
reduction for each group; the optimizer's two moments are of the rows that there are. A head that is not trained
is whole on every rank, and so is an embedding that is tied to it (`opd.models.shards.sharded`). `ranks` are those that
have one copy of the weights among them (`devices.shard`), and `rank` is one's place there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from opd.plan.shape import Shape, Weight
from opd.teachers.quantized import BLOCK

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOAT32 = BYTES["float32"]
MOMENTS = 2
"""Of AdamW, beside a float32 count of its steps for every tensor."""


@dataclass(frozen=True)
class Held:
    """What a trained model keeps on one device, in bytes."""

    weights: int
    gradients: int
    optimizer: int


def rows(weight: Weight, ranks: int, rank: int) -> int:
    """Rows of a parameter that a rank has, without padding; 0 where the chunks before it took them all."""
    chunk = math.ceil(weight.shape[0] / ranks)
    return max(0, min(chunk, weight.shape[0] - rank * chunk))


def numbers(weight: Weight, ranks: int) -> int:
    """Numbers that a rank keeps of a parameter, padding included: the same on every rank."""
    return math.ceil(weight.shape[0] / ranks) * math.prod(weight.shape[1:])


def own_numbers(weight: Weight, ranks: int, rank: int) -> int:
    """Numbers of a parameter that are a rank's, without padding."""
    return rows(weight, ranks, rank) * math.prod(weight.shape[1:])


def parts(weight: Weight, ranks: int) -> int:
    """Into how many a weight that is not trained is cut."""
    return 1 if weight.head else ranks


def trained(shape: Shape, compute: str, ranks: int = 1, rank: int = 0) -> Held:
    """What a student keeps: all that is trained in float32, a frozen base in the computing dtype `compute`."""
    learning = [w for w in shape.weights if w.trained]
    kept = (numbers(w, ranks if w.trained else parts(w, ranks)) * width(w, compute) for w in shape.weights)
    return Held(
        weights=shape.buffers + sum(kept),
        gradients=sum(numbers(w, ranks) for w in learning) * FLOAT32,
        optimizer=sum(MOMENTS * own_numbers(w, ranks, rank) + 1 for w in learning) * FLOAT32,
    )


def width(weight: Weight, compute: str) -> int:
    """Bytes of one number of a student's weight."""
    return FLOAT32 if weight.trained else BYTES[compute]


def gathered_width(weight: Weight, compute: str) -> int:
    """Bytes of one number of a student's weight where a rank has it whole, and of its gradient before it is summed."""
    return BYTES[compute] if weight.narrow else width(weight, compute)


def frozen(shape: Shape, dtype: str, ranks: int = 1) -> int:
    """Bytes of a model that is only read, by a name of its dtype."""
    return shape.buffers + sum(numbers(w, parts(w, ranks)) for w in shape.weights) * BYTES[dtype]


def packed(shape: Shape, dtype: str, bits: str | None) -> int:
    """Bytes of a quantized model, whole: linear layers of the body in 8 bits, each row with its scale, or in 4 (NF4).

    A scale is float32; in 8 bits a zero point of one byte comes with it. What bitsandbytes keeps besides, in 4 bits, is
    small and left out.
    """
    if bits is None:
        return frozen(shape, dtype)
    linear = [w for w in shape.weights if w.linear]
    rest = sum(w.count for w in shape.weights) - sum(w.count for w in linear)
    if bits == "int8":
        return shape.buffers + rest * BYTES[dtype] + sum(w.count + w.shape[0] * (FLOAT32 + 1) for w in linear)
    return shape.buffers + rest * BYTES[dtype] + sum(w.count // 2 + w.count // BLOCK * FLOAT32 for w in linear)
